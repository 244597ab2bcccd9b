import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { call, valueBody } from "../../src/protocol/Operations.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { releaseAll } from "../../src/protocol/ReleaseAll.ts"
import { MemoryRelay } from "../../src/relay/Relay.ts"
import { group } from "../support/groups.ts"
import { makeLives } from "../support/lives.ts"
import { host, type MemoryServices } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const idle = { "portmapper.idle": "waiting" }
const share = { "portmapper.share": "web" }
const plain = (labels: Record<string, string> = {}, protocol = "tcp"): Group =>
  group("8080", [`${protocol} 0.0.0.0 172.17.0.2:80`], labels)
const replica = (number: number, labels: Record<string, string> = {}): Group =>
  group("8080", [`tcp 0.0.0.0 172.17.0.${number}:80`], { ...share, ...labels })

const map = (asked: Group) => Effect.scoped(Driver.use((driver) => driver.mapPorts(asked)))
const states = Effect.flatMap(Driver, ({ listPorts = Effect.succeed([]) }) =>
  Effect.map(listPorts, (mappings) => mappings.map(({ backendIp, state }) => `${backendIp} ${state}`).sort())
)
const routes = Effect.map(MemoryRelay, (relay) => relay.routes())
const rules = Effect.map(MemoryFirewall, (firewall) => firewall.rules())

const test = (title: string, effect: () => Effect.Effect<void, unknown, MemoryServices>) =>
  it.effect(title, () => Effect.provide(effect(), PortMapper.layerMemory()))

const led = "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"
const relayed = "0.0.0.0:8080/tcp -> 172.17.0.2:80"

describe("an idle mapping", () => {
  test("keeps its port, is not redirected, and is as before once it is idle no longer", () =>
    Effect.gen(function* () {
      yield* map(plain())
      const before = yield* host
      yield* map(plain(idle))
      assert.deepStrictEqual(yield* host, {
        ...before,
        rules: [],
        routes: [`${relayed} idle admits everything`]
      })
      assert.deepStrictEqual(yield* states, ["172.17.0.2 waiting"])
      yield* map(plain())
      assert.deepStrictEqual(yield* host, before)
      assert.deepStrictEqual(yield* states, ["172.17.0.2 live"])
    }))

  test("ends no flow when it becomes idle", () =>
    Effect.gen(function* () {
      yield* map(plain({}, "udp"))
      const { flushed } = yield* MemoryConntrack
      const before = flushed()
      yield* map(plain(idle, "udp"))
      assert.deepStrictEqual(flushed(), before)
    }))

  test("has no slots in its service, and gets them back; without any the relay gets all", () =>
    Effect.gen(function* () {
      for (const number of [2, 3]) yield* map(replica(number))
      const before = yield* host
      yield* map(replica(3, idle))
      assert.deepStrictEqual(yield* rules, [`${led} slots 0-63 of 64 by random`])
      assert.deepStrictEqual(yield* routes, [
        `${relayed} slots 0-63 of 64 by random admits loopback`,
        "0.0.0.0:8080/tcp -> 172.17.0.3:80 slots  of 64 by random admits loopback"
      ])
      assert.deepStrictEqual(yield* states, ["172.17.0.2 live", "172.17.0.3 waiting"])
      yield* map(replica(2, { "portmapper.idle": "asleep" }))
      assert.deepStrictEqual(yield* rules, [])
      assert.deepStrictEqual(yield* routes, [
        `${relayed} slots  of 64 by random admits everything`,
        "0.0.0.0:8080/tcp -> 172.17.0.3:80 slots  of 64 by random admits everything"
      ])
      assert.deepStrictEqual(yield* states, ["172.17.0.2 asleep", "172.17.0.3 waiting"])
      for (const number of [2, 3]) yield* map(replica(number))
      assert.deepStrictEqual((yield* host).sockets, before.sockets)
      assert.deepStrictEqual(
        (yield* rules).map((line) => line.replace(/slots \S+/, "")),
        before.rules.map((line) => line.replace(/slots \S+/, ""))
      )
    }))

  it.effect("is idle after a kill, alone and in a service", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      const look = Effect.all([states, rules, routes])
      const before = yield* life(
        Effect.gen(function* () {
          yield* map(replica(2, idle))
          yield* map(group("9090", ["tcp 0.0.0.0 172.17.0.9:80"], idle))
          return yield* look
        })
      )
      assert.deepStrictEqual(before[1], [])
      assert.deepStrictEqual(yield* life(look), before)
    })
  )

  test("may be the first of a service, or join it", () =>
    Effect.gen(function* () {
      yield* map(replica(2, idle))
      assert.deepStrictEqual(yield* rules, [])
      yield* map(replica(3))
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-63 of 64 by random"
      ])
      yield* map(replica(4, idle))
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-63 of 64 by random"
      ])
    }))

  test("leads to another address of its container, on the same socket, where either is idle", () =>
    Effect.gen(function* () {
      const own = { "portmapper.container": "web/0123456789ab" }
      const at = (backend: string, labels: Record<string, string>) =>
        group("8080", [`tcp 0.0.0.0 ${backend}:80`], labels)
      const asleep = { ...own, "portmapper.idle": "asleep" }
      yield* map(at("[100::1]", asleep))
      assert.deepStrictEqual(yield* states, ["100::1 asleep"])
      const { open } = yield* MemoryHost
      const [socket] = open()
      yield* map(at("172.17.0.2", own))
      assert.deepStrictEqual(yield* rules, [led])
      assert.deepStrictEqual(yield* states, ["172.17.0.2 live"])
      assert.match(
        (yield* Effect.flip(map(at("172.17.0.3", own)))).message,
        /^bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated/
      )
      const other = { ...asleep, "portmapper.container": "web/ba9876543210" }
      assert.match((yield* Effect.flip(map(at("172.17.0.3", other)))).message, /port is already allocated/)
      yield* map(at("[100::1]", asleep))
      assert.deepStrictEqual(
        [yield* rules, yield* states, open().map((one) => one.socket)],
        [[], ["100::1 asleep"], [socket?.socket]]
      )
    }))

  for (const [what, from, to] of [
    ["becomes idle", {}, idle],
    ["is idle no longer", idle, {}]
  ] as const)
    test(`changes nothing when a call by which it ${what} fails at any step`, () =>
      Effect.gen(function* () {
        const asked = Effect.andThen(map(replica(2, from)), map(replica(3)))
        yield* asked
        const before = yield* host
        const steps = yield* atEveryStep(
          (done) =>
            Effect.scoped(
              Effect.tap(
                Driver.use((driver) => driver.mapPorts(replica(2, to))),
                done
              )
            ),
          (how, step) =>
            Effect.map(host, (held) => assert.deepStrictEqual(held, before, `${how} at ${step}`)),
          Effect.andThen(host, asked)
        )
        assert.includeMembers(steps as Array<string>, ["Firewall.apply", "Relay.open", "MappingStore.put"])
      }))
})

const drain = (backend: string, ...ports: ReadonlyArray<string>) => draining(backend, ports, true)
const undrain = (backend: string, ...ports: ReadonlyArray<string>) => draining(backend, ports, false)
const draining = (Backend: string, Ports: ReadonlyArray<string>, drained: boolean) =>
  Effect.map(
    Effect.scoped(call(drained ? "PortMapper.Drain" : "PortMapper.Undrain", valueBody({ Backend, Ports }))),
    (answer) =>
      (
        answer as { PortBindings: ReadonlyArray<{ FrontendPort: number; BackendIP: string }> }
      ).PortBindings.map(({ FrontendPort, BackendIP }) => `${FrontendPort} to ${BackendIP}`)
  )
const whyNot = <A, R>(effect: Effect.Effect<A, { readonly message: string }, R>) =>
  Effect.map(Effect.flip(effect), ({ message }) => message)

describe("a drained backend", () => {
  test("gets no new connections on any of its ports, and all of them once it is undrained", () =>
    Effect.gen(function* () {
      for (const number of [2, 3]) yield* map(replica(number))
      yield* map(group("9090", ["tcp 0.0.0.0 172.17.0.2:90", "tcp :: 172.17.0.2:90"]))
      const before = yield* host
      assert.deepStrictEqual(yield* drain("172.17.0.2"), [
        "8080 to 172.17.0.2",
        "9090 to 172.17.0.2",
        "9090 to 172.17.0.2"
      ])
      assert.deepStrictEqual(yield* states, [
        "172.17.0.2 drained",
        "172.17.0.2 drained",
        "172.17.0.2 drained",
        "172.17.0.3 live"
      ])
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-63 of 64 by random"
      ])
      const drained = yield* host
      assert.deepStrictEqual(yield* drain("172.17.0.2", "9090"), ["9090 to 172.17.0.2", "9090 to 172.17.0.2"])
      assert.deepStrictEqual(yield* host, drained)
      // Asking for it again, or its health, changes nothing.
      yield* map(replica(2))
      yield* map(replica(2, idle))
      yield* map(replica(2))
      assert.deepStrictEqual(yield* host, drained)
      yield* undrain("172.17.0.2", "9090")
      assert.deepStrictEqual((yield* states).filter((state) => state === "172.17.0.2 live").length, 2)
      yield* undrain("172.17.0.2")
      const after = yield* host
      const slotless = (lines: ReadonlyArray<string>) => lines.map((line) => line.replace(/slots \S+/, ""))
      assert.deepStrictEqual(
        [after.sockets, slotless(after.rules), slotless(after.routes)],
        [before.sockets, slotless(before.rules), slotless(before.routes)]
      )
    }))

  it.effect("stays drained through a kill, until it is unmapped", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      const look = Effect.all([states, rules, routes])
      const before = yield* life(
        Effect.gen(function* () {
          for (const number of [2, 3]) yield* map(replica(number))
          yield* map(group("9090", ["tcp 0.0.0.0 172.17.0.2:90"]))
          yield* drain("172.17.0.2")
          return yield* look
        })
      )
      assert.deepStrictEqual(before[0], ["172.17.0.2 drained", "172.17.0.2 drained", "172.17.0.3 live"])
      assert.deepStrictEqual(yield* life(look), before)
      assert.deepStrictEqual(
        yield* life(
          Effect.gen(function* () {
            const driver = yield* Driver
            yield* releaseAll(driver)
            yield* map(replica(2))
            return yield* states
          })
        ),
        ["172.17.0.2 live"]
      )
    })
  )

  test("is named by its container too, and refusals say what there is", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* whyNot(drain("web-9")), "nothing leads to web-9: there are no backends")
      yield* map(replica(2, { "portmapper.container": "web-1/0123456789ab" }))
      yield* map(replica(3, { "portmapper.container": "web-2/0123999999ab" }))
      yield* map(group("9090", ["tcp 0.0.0.0 172.17.0.9:90"], { "portmapper.mode": "engine" }))
      assert.deepStrictEqual(yield* drain("web-1"), ["8080 to 172.17.0.2"])
      assert.deepStrictEqual(yield* undrain(`0123456789ab${"c".repeat(52)}`), ["8080 to 172.17.0.2"])
      const before = yield* host
      assert.strictEqual(
        yield* whyNot(drain("web-9")),
        "nothing leads to web-9; there are 172.17.0.2 (web-1), 172.17.0.3 (web-2), 172.17.0.9"
      )
      assert.strictEqual(
        yield* whyNot(drain("0123456789")),
        "nothing leads to 0123456789; there are 172.17.0.2 (web-1), 172.17.0.3 (web-2), 172.17.0.9"
      )
      assert.strictEqual(
        yield* whyNot(drain("web-1", "8080", "8081/udp")),
        "8081/udp does not lead to web-1, which has 0.0.0.0:8080/tcp"
      )
      assert.strictEqual(
        yield* whyNot(drain("172.17.0.9")),
        "0.0.0.0:9090/tcp: mode engine leads to its backend without this plugin; it needs mode nat or proxy"
      )
      assert.strictEqual(
        yield* whyNot(drain("", "x")),
        'bad request: Backend = "": must be a container\'s name or id, or an address, of at most 255 characters; Ports[0] = "x": must be [HOSTIP:]PORT[-END][:CONTAINERPORT[-END]][/PROTO] (host port "x": expected PORT or FIRST-LAST)'
      )
      assert.deepStrictEqual(yield* host, before)
      yield* map(
        group("9091", ["tcp :: [100::1]:90"], {
          "portmapper.idle": "asleep",
          "portmapper.container": "web-3/0123999999ac"
        })
      )
      assert.strictEqual(
        yield* whyNot(drain("172.17.0.8")),
        "nothing leads to 172.17.0.8; there are 172.17.0.2 (web-1), 172.17.0.3 (web-2), 172.17.0.9, web-3 (asleep)"
      )
      assert.match(
        yield* whyNot(map(group("9091", ["tcp :: 172.17.0.4:90"]))),
        /port is already allocated \(held by engine for web-3 \(asleep\) port 90 since /
      )
      assert.match(
        yield* whyNot(drain("w".repeat(256))),
        /^bad request: Backend = "w{3,100}…?"?…?: must be a container's name or id, or an address, of at most 255 characters$/
      )
    }))

  test("is listed with the connections that are open to it, by whatever way", () =>
    Effect.gen(function* () {
      for (const number of [2, 3]) yield* map(replica(number))
      const { keepOpen } = yield* MemoryConntrack
      keepOpen("172.17.0.2:80/tcp", 3)
      keepOpen("172.17.0.3:80/tcp", 4)
      const open = Effect.flatMap(Driver, ({ listPorts = Effect.succeed([]) }) =>
        Effect.map(listPorts, (all) => all.map(({ backendIp, open }) => `${backendIp} ${open}`).sort())
      )
      assert.deepStrictEqual(yield* open, ["172.17.0.2 undefined", "172.17.0.3 undefined"])
      yield* drain("172.17.0.2")
      assert.deepStrictEqual(yield* open, ["172.17.0.2 3", "172.17.0.3 undefined"])
      keepOpen("172.17.0.2:80/tcp", 0)
      assert.deepStrictEqual(yield* open, ["172.17.0.2 0", "172.17.0.3 undefined"])
    }))

  test("changes nothing when draining fails at any step", () =>
    Effect.gen(function* () {
      for (const number of [2, 3]) yield* map(replica(number))
      yield* map(group("9090", ["tcp 0.0.0.0 172.17.0.2:90"]))
      const before = [yield* host, yield* states]
      const steps = yield* atEveryStep(
        (done) =>
          Effect.tap(
            Driver.use(({ drain = () => Effect.die("no drain") }) =>
              drain({ backend: "", addresses: [addressUnsafe("172.17.0.2")], ports: [], drained: true })
            ),
            done
          ),
        (how, step) =>
          Effect.map(Effect.all([host, states]), (held) =>
            assert.deepStrictEqual(held, before, `${how} at ${step}`)
          ),
        Effect.andThen(host, undrain("172.17.0.2"))
      )
      assert.includeMembers(steps as Array<string>, ["Firewall.apply", "Relay.open", "MappingStore.put"])
    }))
})

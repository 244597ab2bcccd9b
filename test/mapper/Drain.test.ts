import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { call, valueBody } from "../../src/protocol/Operations.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { releaseAll } from "../../src/protocol/ReleaseAll.ts"
import { MemoryRelay } from "../../src/relay/Relay.ts"
import { listed, map, testMapper as test } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { makeLives } from "../support/lives.ts"
import { host } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const replica = (number: number, labels: Record<string, string> = {}): Group =>
  group("8080", [`tcp 0.0.0.0 172.17.0.${number}:80`], { "portmapper.share": "web", ...labels })

const states = Effect.map(listed, (all) => all.map(({ backendIp, state }) => `${backendIp} ${state}`).sort())
const routes = Effect.map(MemoryRelay, (relay) => relay.routes())
const rules = Effect.map(MemoryFirewall, (firewall) => firewall.rules())

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
      yield* map(replica(2, { "portmapper.idle": "waiting" }))
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
        group("9091", ["tcp 0.0.0.0 172.17.0.4:80"], { "portmapper.container": "web-1/ba9876543210" })
      )
      assert.strictEqual(
        yield* whyNot(drain("web-1")),
        "web-1 is ambiguous: it matches the containers 0123456789ab, ba9876543210"
      )
    }))

  test("is named by its container where that is asleep, and by no longer name than errors can repeat", () =>
    Effect.gen(function* () {
      yield* map(
        group("9091", ["tcp :: [100::1]:90"], {
          "portmapper.idle": "asleep",
          "portmapper.container": "web-3/0123999999ac"
        })
      )
      assert.strictEqual(
        yield* whyNot(drain("172.17.0.8")),
        "nothing leads to 172.17.0.8; there are web-3 (asleep)"
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
      const open = Effect.map(listed, (all) =>
        all.map(({ backendIp, open }) => `${backendIp} ${open}`).sort()
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

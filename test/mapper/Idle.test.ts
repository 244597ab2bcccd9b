import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { MemoryRelay } from "../../src/relay/Relay.ts"
import { listed, map, mapAndTell, testMapper as test } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { makeLives } from "../support/lives.ts"
import { host } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const idle = { "portmapper.idle": "waiting" }
const share = { "portmapper.share": "web" }
const plain = (labels: Record<string, string> = {}, protocol = "tcp"): Group =>
  group("8080", [`${protocol} 0.0.0.0 172.17.0.2:80`], labels)
const replica = (number: number, labels: Record<string, string> = {}): Group =>
  group("8080", [`tcp 0.0.0.0 172.17.0.${number}:80`], { ...share, ...labels })

const states = Effect.map(listed, (all) => all.map(({ backendIp, state }) => `${backendIp} ${state}`).sort())
const routes = Effect.map(MemoryRelay, (relay) => relay.routes())
const rules = Effect.map(MemoryFirewall, (firewall) => firewall.rules())

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
          mapAndTell(replica(2, to)),
          (how, step) =>
            Effect.map(host, (held) => assert.deepStrictEqual(held, before, `${how} at ${step}`)),
          Effect.andThen(host, asked)
        )
        assert.includeMembers(steps as Array<string>, ["Firewall.apply", "Relay.open", "MappingStore.put"])
      }))
})

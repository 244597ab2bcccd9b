import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryByteCounter } from "../../src/firewall/ByteCounter.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver, ListedOwner } from "../../src/protocol/Driver.ts"
import { listed, map, testMapper as test, unmap } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { makeLives } from "../support/lives.ts"

const web = "tcp 0.0.0.0 172.17.0.2:80"
const webBy6 = "tcp :: 172.17.0.2:80"

describe("the list of mappings", () => {
  test("sums the traffic of the kernel and the relay, where both count", () =>
    Effect.gen(function* () {
      const kernel = yield* MemoryByteCounter
      const bytes = Effect.map(listed, (all) =>
        all.map(({ frontendIp, mode, bytesIn, bytesOut }) => `${frontendIp} ${mode} ${bytesIn} ${bytesOut}`)
      )
      const bindings = yield* map(group("8080", [web, webBy6]))
      yield* map(group("8081", [web], { "portmapper.mode": "proxy" }))
      yield* map(group("8082", [web], { "portmapper.mode": "engine" }))
      const others = ["0.0.0.0 proxy 0 0", "0.0.0.0 engine undefined undefined"]
      assert.deepStrictEqual(yield* bytes, ["0.0.0.0 nat undefined undefined", ":: nat 0 0", ...others])
      kernel.carry("0.0.0.0:8080/tcp", { in: 10, out: 200 })
      assert.deepStrictEqual(yield* bytes, ["0.0.0.0 nat 10 200", ":: nat 0 0", ...others])
      yield* unmap(bindings)
      yield* map(group("8080", [web]))
      assert.deepStrictEqual(yield* bytes, [...others, "0.0.0.0 nat 0 0"])
    }))

  test("counts what each label of a mapping can refuse, and nothing else", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web], { "portmapper.rate": "20/s", "portmapper.allow": "10.0.0.0/8" }))
      yield* map(group("8081", [web], { "portmapper.connections": "5", "portmapper.rate-per-source": "3/s" }))
      yield* map(group("8082", [web]))
      assert.deepStrictEqual(
        (yield* listed).map(({ refused }) => refused),
        [{ allow: 0, rate: 0 }, { connections: 0, "rate-per-source": 0 }, {}]
      )
    }))

  test("has only its own mappings for an owner that asks for them, without their counters", () =>
    Effect.gen(function* () {
      yield* Effect.provideService(map(group("8080", [web])), CurrentOwner, "cli")
      yield* map(group("8081", [web]))
      const ofOwner = (owner: string) =>
        Effect.map(Effect.provideService(listed, ListedOwner, owner), (all) =>
          all.map(({ frontendPort, connections }) => [frontendPort, connections])
        )
      assert.deepStrictEqual(yield* ofOwner("cli"), [[8080, undefined]])
      assert.deepStrictEqual(yield* ofOwner("cni:one/eth0"), [])
    }))

  test("shows a container that did not wake as asleep, and a drained backend as drained whatever its health", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      const at = (address: string, idle: string) =>
        group("0", [`tcp 0.0.0.0 ${address}:80`], { "portmapper.idle": idle })
      for (const [index, idle] of ["waiting", "asleep", "waking", "failed"].entries())
        yield* map(at(`172.17.0.${index}`, idle))
      const states = Effect.map(listed, (all) => all.map(({ state }) => state))
      assert.deepStrictEqual(yield* states, ["waiting", "asleep", "waking", "asleep"])
      const addresses = [addressUnsafe("172.17.0.0")]
      yield* driver.drain?.({ backend: "", addresses, ports: [], drained: true }) ?? Effect.die("no drain")
      assert.deepStrictEqual(yield* states, ["drained", "asleep", "waking", "asleep"])
    }))

  it.effect("gives the reason of what is redirected but not relayed, as long as it is not", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      const reasons = Effect.map(listed, (all) => all.map(({ reason, carriers }) => ({ reason, carriers })))
      const carried = { socket: true, kernel: true } as const
      yield* life(map(group("8080", [web])))
      yield* life(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* reasons, [
            {
              reason:
                "it is redirected, but not relayed: relay for 0.0.0.0:8080/tcp failed: injected failure at Relay.open",
              carriers: { ...carried, relay: undefined }
            }
          ])
        })
      ).pipe(
        Effect.provideService(Steps, (step) =>
          step === "Relay.open" ? Effect.fail(new InjectedFailure({ step })) : Effect.void
        )
      )
      assert.deepStrictEqual(yield* life(reasons), [
        { reason: undefined, carriers: { ...carried, relay: "loopback" } }
      ])
    })
  )
})

import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { FirewallError, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { MemoryStore, StoreError } from "../../src/mapper/MappingStore.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { map, mapAndTell, pending, refused, testMapper as test } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { host, leavesNothing, nothing, unmapAll } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const web = "tcp 0.0.0.0 172.17.0.2:80"
const webBy6 = "tcp :: 172.17.0.2:80"
const other = group("8080", ["tcp 0.0.0.0 172.17.0.3:80"])

describe("a change that fails", () => {
  const everything = group("8000-8010", [
    web,
    "tcp 10.99.0.1 172.17.0.2:80",
    webBy6,
    "udp 0.0.0.0 172.17.0.2:80",
    "tcp 127.0.0.1 172.17.0.2:80"
  ])

  test("leaves nothing after a failure or an interruption at any step", () =>
    leavesNothing(mapAndTell(everything)))

  test("keeps the host port of a binding where removing it fails", () =>
    Effect.gen(function* () {
      const firewall = yield* MemoryFirewall
      yield* map(group("8080", [web]))
      const before = yield* host
      firewall.refuse(new FirewallError({ reason: "Failed", operation: "change", detail: "busy" }))
      assert.strictEqual(
        yield* refused(group("8080", [web], { "portmapper.mode": "routed" })),
        "UnmapError: unmapping 0.0.0.0:8080/tcp failed: change failed: busy"
      )
      firewall.refuse(undefined)
      assert.deepStrictEqual(yield* host, before)
    }))

  test("relays as before a failed change of policy, once the relay accepts again", () =>
    Effect.gen(function* () {
      const proxied = group("8080", ["tcp 10.99.0.1 172.17.0.2:80"], { "portmapper.mode": "proxy" })
      yield* map(proxied)
      const before = yield* host
      const changed = Effect.exit(map({ ...proxied, labels: new Map() }))
      // From the first write of the record on.
      const failing = new Set(["MappingStore.put"])
      yield* Effect.provideService(changed, Steps, (step) => {
        if (!failing.has(step)) return Effect.void
        failing.add("Relay.open")
        return Effect.fail(new InjectedFailure({ step }))
      })
      assert.deepStrictEqual((yield* host).routes, ["10.99.0.1:8080/tcp -> 172.17.0.2:80 admits loopback"])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* host, before)
    }))

  test("deletes the flows that a failed change of policy admitted", () =>
    Effect.gen(function* () {
      const conntrack = yield* MemoryConntrack
      const store = yield* MemoryStore
      yield* map(group("8080", [web], { "portmapper.allow": "10.0.0.0/8" }))
      const before = conntrack.flushed().length
      store.refuse(new StoreError({ reason: "Full", operation: "recording", detail: "disk full" }))
      yield* refused(group("8080", [web]))
      assert.deepStrictEqual(conntrack.flushed().slice(before), [
        "0.0.0.0:8080/tcp unless to 172.17.0.2:80",
        "0.0.0.0:8080/tcp unless to 172.17.0.2:80 from 10.0.0.0/8 and narrowed"
      ])
    }))

  it.effect("restores what it has evicted, after a failure or an interruption at any step", () =>
    Effect.gen(function* () {
      const evictable = Effect.andThen(map(group("8080", [web])), TestClock.adjust("30 seconds"))
      yield* evictable
      const before = yield* host
      yield* atEveryStep(
        mapAndTell(other),
        (how, step) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* host, before, `${how} at ${step}`)
          }),
        Effect.andThen(unmapAll, evictable)
      )
    }).pipe(Effect.provide(PortMapper.layerMemory({}, Backends.layerMemory(new Set(["172.17.0.2"])))))
  )

  test("leaves what it would have replaced to the answer that is on its way, whichever step fails", () =>
    Effect.gen(function* () {
      const asked = (mode: string) => group("8080", [web], { "portmapper.mode": mode })
      let answer = yield* pending(asked("nat"))
      const again = Effect.map(pending(asked("nat")), (next) => {
        answer = next
      })
      yield* atEveryStep(
        mapAndTell(asked("routed")),
        (how, step) =>
          Effect.gen(function* () {
            yield* answer.lost
            assert.deepStrictEqual(yield* host, nothing, `${how} at ${step}`)
            yield* again
          }),
        Effect.andThen(unmapAll, again)
      )
    }))
})

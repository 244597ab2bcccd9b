import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { FirewallError, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { listed, map, mapAndLose, pending, testMapper as test } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { host, nothing } from "../support/memoryHost.ts"

const web = (labels: Record<string, string> = {}) => group("8080", ["tcp 0.0.0.0 172.17.0.2:80"], labels)
const other = group("8080", ["tcp 0.0.0.0 172.17.0.3:80"])
const states = Effect.map(listed, (all) =>
  all.map(({ backendIp, mode, state }) => `${backendIp} ${mode} ${state}`)
)
const stored = Effect.map(host, (held) => held.stored)

describe("an answer", () => {
  test("makes what it names answered, in the record too, once it is delivered", () =>
    Effect.gen(function* () {
      const { delivered } = yield* pending(web())
      assert.deepStrictEqual(yield* stored, ["0.0.0.0:8080 applied"])
      yield* delivered
      assert.deepStrictEqual(yield* stored, ["0.0.0.0:8080 answered"])
    }))

  test("that is lost releases what it alone names, and leaves a policy as it was asked for last", () =>
    Effect.gen(function* () {
      yield* mapAndLose(web())
      assert.deepStrictEqual(yield* host, nothing)
      yield* map(web())
      yield* mapAndLose(web({ "portmapper.allow": "10.0.0.0/8" }))
      assert.deepStrictEqual((yield* host).rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 from 10.0.0.0/8"
      ])
    }))

  test("that is lost releases nothing that another one, which is on its way, names", () =>
    Effect.gen(function* () {
      const [first, second] = [yield* pending(web()), yield* pending(web())]
      yield* first.lost
      assert.deepStrictEqual(yield* stored, ["0.0.0.0:8080 applied"])
      yield* second.lost
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("names what has replaced its mapping meanwhile", () =>
    Effect.gen(function* () {
      const first = yield* pending(web())
      const second = yield* pending(web({ "portmapper.mode": "routed" }))
      yield* first.delivered
      yield* second.lost
      assert.deepStrictEqual(yield* states, ["172.17.0.2 routed live"])
      assert.deepStrictEqual(yield* stored, ["0.0.0.0:0 answered"])
    }))

  test("that is lost leaves as unconfirmed what can't be released, and any claim evicts that later", () =>
    Effect.gen(function* () {
      const firewall = yield* MemoryFirewall
      const { lost } = yield* pending(web())
      firewall.refuse(new FirewallError({ reason: "Busy", operation: "changing", detail: "no buffers" }))
      yield* lost
      assert.deepStrictEqual(yield* states, ["172.17.0.2 nat unconfirmed"])
      firewall.refuse(undefined)
      yield* map(other)
      assert.deepStrictEqual(yield* states, ["172.17.0.3 nat live"])
    }))

  it.effect("that is lost brings back nothing that its call evicted", () =>
    Effect.gen(function* () {
      yield* map(web())
      yield* TestClock.adjust("30 seconds")
      yield* mapAndLose(other)
      assert.deepStrictEqual(yield* host, nothing)
    }).pipe(Effect.provide(PortMapper.layerMemory({}, Backends.layerMemory(new Set(["172.17.0.2"])))))
  )
})

import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { claimed, refusedBy, testHosts as test, two, web, within, writesOf } from "../cluster/MemoryHosts.ts"
import { group } from "../support/groups.ts"

describe("a port of a host of a cluster", () => {
  test(
    "is the host's own on loopback, in mode routed, and by portmapper.scope=host",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const asked = [
        group("8080", ["tcp 127.0.0.1 172.17.0.2:80"]),
        group("8081", [web], { "portmapper.mode": "routed" }),
        group("8082", [web], { "portmapper.scope": "host" })
      ]
      for (const each of asked)
        for (const host of [a, b]) assert.strictEqual(yield* writesOf(host, host.map(each)), 0)
      yield* a.kill
      yield* a.start
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* claimed, [])
      yield* within(4000, a.map(group("8083", [web])))
      assert.deepStrictEqual(yield* claimed, ["a tcp 8083"])
    })
  )

  test(
    "becomes unique when its mapping gets the label, and its own host's when it loses it",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const asked = (scope: string) => group("8080", [web], { "portmapper.scope": scope })
      yield* a.map(asked("host"))
      assert.deepStrictEqual(yield* claimed, [])
      yield* a.map(asked("cluster"))
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
      assert.strictEqual(
        yield* b.refused(asked("cluster")),
        refusedBy("held by host a for 172.17.0.2:80, owner engine")
      )
      yield* a.map(asked("host"))
      assert.deepStrictEqual(yield* claimed, [])
    })
  )
})

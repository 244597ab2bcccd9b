import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { other, testHosts as test, two, web } from "../cluster/MemoryHosts.ts"
import { group } from "../support/groups.ts"

describe("a mapping whose port another host has got", () => {
  test(
    "is withdrawn, and served again once that host has released it",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      etcd.cut("a")
      yield* TestClock.adjust("31 seconds")
      const bindings = yield* b.map(group("8080", [other]))
      etcd.mend("a")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* a.rules, [])
      yield* b.unmap(bindings)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* a.listed, ["0.0.0.0:8080 live"])
      assert.deepStrictEqual(yield* a.rules, ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"])
      yield* b.refused(group("8080", [other]))
    })
  )
})

import { assert, describe } from "@effect/vitest"
import { Effect, Queue, Stream } from "effect"
import type { ClusterEvent } from "../../src/cluster/ClusterState.ts"
import type { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { claims, pass, testStore as test, twoHosts } from "./twoStores.ts"

describe("a watch", () => {
  const watching = Effect.fnUntraced(function* (store: ClusterStore["Service"]) {
    const events = yield* Queue.unbounded<ClusterEvent>()
    yield* Effect.forkChild(Stream.runForEach(store.watch, (event) => Queue.offer(events, event)))
    yield* pass(0)
    /** Those since the last call, without changes of nothing. */
    return Effect.map(Queue.clear(events), (seen) =>
      seen.filter((event) => event._tag !== "Changed" || event.changes.length > 0)
    )
  })

  test(
    "that was cut off goes on with what it missed",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const seen = yield* watching(a.store)
      assert.deepStrictEqual(
        (yield* seen).map(({ _tag }) => _tag),
        ["Snapshot"]
      )
      memory.cut("a")
      yield* b.claim()
      yield* pass(10)
      const meanwhile = (yield* seen).map(({ _tag }) => _tag)
      assert.deepStrictEqual([...new Set(meanwhile)], ["Interrupted"])
      memory.mend("a")
      yield* pass(10)
      assert.deepStrictEqual(
        (yield* seen).flatMap((event) =>
          event._tag === "Changed" ? event.changes.map(({ _tag }) => _tag) : []
        ),
        ["CellMoved", "Claimed"]
      )
    })
  )

  test(
    "whose changes were compacted meanwhile shows everything again",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const seen = yield* watching(a.store)
      yield* seen
      memory.cut("a")
      yield* b.claim()
      memory.compact()
      yield* pass(10)
      memory.mend("a")
      yield* pass(10)
      const last = (yield* seen).at(-1)
      assert.deepStrictEqual(last, yield* a.store.readAll)
    })
  )

  test(
    "shows everything again after a backup, also where its revision was reached anew",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const seen = yield* watching(a.store)
      const backup = memory.backup()
      yield* a.claim()
      yield* pass(0)
      assert.deepStrictEqual(
        (yield* seen).map(({ _tag }) => _tag),
        ["Snapshot", "Changed"]
      )
      memory.cut("a")
      yield* memory.restore(backup)
      for (let revision = 0; revision < 5; revision++) yield* b.claim({ cell: String(revision), revision: 0 })
      memory.mend("a")
      yield* pass(10)
      const events = yield* seen
      assert.deepStrictEqual(events.at(-1), yield* a.store.readAll)
      assert.deepStrictEqual(claims(memory), Array(5).fill("8080: b web"))
    })
  )
})

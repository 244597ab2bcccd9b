import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { claims, faults, lostReply, pass, testStore as test, twoHosts } from "./twoStores.ts"

describe("a claim", () => {
  test(
    "whose reply is lost is held, and answered as such",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", lostReply)
      const claim = yield* Effect.forkChild(a.claim())
      yield* pass(2)
      assert.strictEqual((yield* Fiber.join(claim))._tag, "Claimed")
      assert.deepStrictEqual(claims(memory), ["8080: a web"])
    })
  )

  test(
    "in a cell in which another host has claimed since is not made, and brings the cell as it is now",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      yield* a.claim()
      const { _tag, state } = yield* b.claim()
      assert.deepStrictEqual([_tag, state.claims.map(({ host }) => host)], ["Moved", ["a"]])
      assert.deepStrictEqual(claims(memory), ["8080: a web"])
    })
  )

  test(
    "that never arrives fails in time with the reason, and is made by nobody later",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      memory.cut("a")
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(3)
      const error = yield* Fiber.join(claim)
      assert.strictEqual(error.message, "etcd at memory for a: no answer")
      memory.mend("a")
      yield* pass(3)
      assert.deepStrictEqual(claims(memory), [])
      const seen = yield* b.store.readCell("125")
      assert.strictEqual((yield* b.claim(seen))._tag, "Claimed")
    })
  )

  test(
    "that waits for another one to be settled fails in time with the reason, too",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      memory.cut("a")
      for (let attempt = 0; attempt < 3; attempt++) {
        const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
        yield* pass(3)
        assert.strictEqual((yield* Fiber.join(claim)).message, "etcd at memory for a: no answer")
      }
    })
  )

  test(
    "on a lease that ended on its way is refused",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      yield* pass(29.5)
      faults(memory, "a", { requestDelay: Duration.millis(800) })
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(1)
      assert.strictEqual((yield* Fiber.join(claim))._tag, "LeaseLost")
      assert.deepStrictEqual(claims(memory), [])
    })
  )
})

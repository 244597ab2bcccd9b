import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import type { HeldClaim } from "../../src/cluster/ClusterState.ts"
import { claims, faults, lostReply, lostRequest, pass, testStore as test, twoHosts } from "./twoStores.ts"

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

describe("a claim in doubt", () => {
  test(
    "is one whose reply was lost, until it is given back",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", lostReply, lostRequest, lostRequest, lostRequest, lostRequest)
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(2.8)
      yield* Fiber.join(claim)
      memory.setFaults(() => undefined)
      const [held] = (yield* a.store.readCell("125")).claims as [HeldClaim]
      assert.isTrue(a.store.isDoubtful(held))
      yield* pass(2)
      assert.isFalse(a.store.isDoubtful(held))
      assert.deepStrictEqual(claims(memory), [])
    })
  )
})

describe("an update", () => {
  test(
    "that arrives once the claim has moved to another lease does nothing",
    Effect.gen(function* () {
      const { a } = yield* twoHosts
      const { state } = yield* a.claim()
      const [held] = state.claims as [HeldClaim]
      yield* a.store.leave(a.session, Duration.minutes(10))
      assert.isFalse(yield* a.store.update(a.session, held, "db"))
      const [left] = (yield* a.store.readCell("125")).claims
      assert.strictEqual(left?.value, "web")
      assert.notStrictEqual(left?.lease, a.session.lease)
    })
  )
})

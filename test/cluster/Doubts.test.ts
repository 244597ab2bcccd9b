import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { claims, faults, lostReply, lostRequest, pass, testStore as test, twoHosts } from "./twoStores.ts"

describe("a claim that may have been made", () => {
  test(
    "is given back once etcd can be reached",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", lostReply, ...Array.from({ length: 20 }, () => lostRequest))
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(3)
      assert.include(yield* Fiber.join(claim), { _tag: "ClusterError", mayBeDone: true })
      assert.deepStrictEqual(claims(memory), ["8080: a web"])
      memory.setFaults(() => undefined)
      yield* pass(5)
      assert.deepStrictEqual(claims(memory), [])
    })
  )

  test(
    "does nothing where it arrives once its cell has been settled",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const late = { requestDelay: Duration.seconds(20) }
      faults(memory, "a", late, late, late)
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(3)
      yield* Fiber.join(claim)
      yield* pass(3)
      const seen = yield* b.store.readCell("125")
      assert.isAbove(seen.revision, 0)
      yield* pass(20)
      assert.deepStrictEqual(claims(memory), [])
      assert.strictEqual((yield* b.claim(seen))._tag, "Claimed")
      assert.deepStrictEqual(claims(memory), ["8080: b web"])
    })
  )

  test(
    "is settled before another one in its cell is made",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", lostReply, lostRequest, lostRequest)
      const first = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(2.5)
      yield* Fiber.join(first)
      memory.setFaults(() => undefined)
      const seen = yield* a.store.readCell("125")
      assert.strictEqual(seen.claims.length, 1)
      const second = yield* a.store.claim(a.session, seen, [{ name: "8081", value: "db" }])
      assert.deepStrictEqual(claims(memory), ["8081: a db"])
      assert.strictEqual(second._tag, "Claimed")
    })
  )

  test(
    "is given back where its caller was interrupted on its way",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", { requestDelay: Duration.millis(500) })
      const claim = yield* Effect.forkChild(a.claim())
      yield* pass(0.1)
      yield* Fiber.interrupt(claim)
      yield* pass(5)
      assert.deepStrictEqual(claims(memory), [])
    })
  )
})

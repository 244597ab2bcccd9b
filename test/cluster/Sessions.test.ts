import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { faults, lostReply, lostRequest, pass, testStore as test, ttl, twoHosts } from "./twoStores.ts"

describe("a host", () => {
  test(
    "leaves and comes back where every first reply is lost",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      const { state } = yield* a.claim()
      let isLost = false
      memory.setFaults((host) => {
        isLost = host === "a" && !isLost
        return isLost ? lostReply : undefined
      })
      const left = yield* Effect.forkChild(a.store.leave(a.session, Duration.minutes(10)))
      yield* pass(60)
      yield* Fiber.join(left)
      const back = yield* Effect.forkChild(a.store.open({ host: "a", identity: "a", ttl }))
      yield* pass(25)
      const { session } = yield* Fiber.join(back)
      memory.setFaults(() => undefined)
      const cell = yield* a.store.readCell("125")
      assert.deepStrictEqual(
        cell.claims,
        state.claims.map((claim) => ({ ...claim, lease: session.lease }))
      )
    })
  )

  test(
    "moves nothing any more once a successor has taken its place",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      const { state } = yield* a.claim()
      const none = {}
      // It reads, writes and moves.
      faults(memory, "a", none, none, { requestDelay: Duration.millis(2500) }, lostRequest, lostRequest)
      const leaving = yield* Effect.forkChild(a.store.leave(a.session, Duration.minutes(10)))
      yield* pass(2)
      yield* Fiber.interrupt(leaving)
      // It reads and writes, finds nothing to move, and writes again.
      faults(memory, "a", none, none, { requestDelay: Duration.millis(800) })
      const back = yield* Effect.forkChild(a.store.open({ host: "a", identity: "a", ttl }))
      yield* pass(3)
      const { session } = yield* Fiber.join(back)
      const cell = yield* a.store.readCell("125")
      assert.deepStrictEqual(
        cell.claims,
        state.claims.map((claim) => ({ ...claim, lease: session.lease }))
      )
    })
  )

  test(
    "ends no lease that a successor may have found in its record",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      const { state } = yield* a.claim()
      const options = { host: "a", identity: "a", ttl: Duration.minutes(1) }
      // It reads, writes and moves.
      faults(memory, "a", {}, {}, { requestDelay: Duration.millis(500) })
      const late = yield* Effect.forkChild(a.store.open(options))
      yield* pass(0.1)
      const { session } = yield* a.store.open(options)
      yield* pass(1)
      assert.deepStrictEqual((yield* Fiber.join(late)).session, session)
      const cell = yield* a.store.readCell("125")
      assert.deepStrictEqual(
        cell.claims,
        state.claims.map((claim) => ({ ...claim, lease: session.lease }))
      )
    })
  )
})

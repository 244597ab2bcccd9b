import { assert, describe } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { lostReply, pass, testStore as test, ttl, twoHosts } from "./twoStores.ts"

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
})

/** Polls for conditions that raise no event. */
import { isDeepStrictEqual } from "node:util"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { patienceMillis } from "../lab/patience.ts"

/** Polls until the condition holds; dies where it never does. Returns the last value. */
export const until = <A, E, R>(
  look: Effect.Effect<A, E, R>,
  isSo: (seen: A) => boolean = (seen) => seen === true
): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    const deadline = performance.now() + patienceMillis
    while (true) {
      const seen = yield* look
      if (isSo(seen)) return seen
      if (performance.now() > deadline)
        return yield* Effect.die(new Error(`not so after ${patienceMillis} ms: ${JSON.stringify(seen)}`))
      yield* Effect.sleep(20)
    }
  })

/**
 * Turns of this process's event loop: by then it has read what its sockets received before, however busy the machine
 * is.
 */
export const turns = (count = 20): Effect.Effect<void> =>
  Effect.promise(async () => {
    for (let turn = 0; turn < count; turn++) await new Promise(setImmediate)
  })

/** Polls until the value is as wanted; prints the last value where it never is. */
export const untilEqual = async <A>(look: () => Promise<A> | A, wanted: A): Promise<void> => {
  const deadline = performance.now() + patienceMillis
  let seen = await look()
  while (!isDeepStrictEqual(seen, wanted) && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    seen = await look()
  }
  assert.deepStrictEqual(seen, wanted)
}

/**
 * Runs in its own process: tries repeatedly to take the lock on the kernel's table, and prints `won` when it has it.
 */
import { setTimeout } from "node:timers/promises"
import { Effect, Result } from "effect"
import { makeNamespaceLock } from "../../adapters/linux/nft/NamespaceLock.ts"

const race = Effect.gen(function* () {
  const { take } = yield* makeNamespaceLock()
  for (let turn = 0; ; turn++) {
    if (Result.isSuccess(yield* Effect.result(take))) return console.log("won")
    if (turn === 0) console.log("racing")
    yield* Effect.promise(() => setTimeout(1))
  }
})

await Effect.runPromise(Effect.scoped(race))

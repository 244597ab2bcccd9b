/** Runs in a process of its own: tries to take the lock on the kernel's table, again and again, and says `won` when it has. */
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

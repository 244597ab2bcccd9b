/** Runs in its own process: takes the lock of the given folder, prints that, and holds it until its input ends. */
import { Effect } from "effect"
import { lockState } from "../../adapters/node/StateLock.ts"

const held = Effect.gen(function* () {
  yield* lockState(process.argv[2] ?? "", { wait: process.argv[3] === undefined ? 0 : "10 seconds" })
  console.log("locked")
  yield* Effect.callback<void>((resume) => {
    process.stdin.once("end", () => resume(Effect.void)).resume()
  })
})

await Effect.runPromise(
  Effect.match(Effect.scoped(held), {
    onFailure: (error) => console.log(error.message),
    onSuccess: () => console.log("done")
  })
)

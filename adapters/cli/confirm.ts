/** Asks before a command takes something away. */
import * as Readline from "node:readline/promises"
import { Effect } from "effect"
import { Flag } from "effect/cli"
import { wrongUsage } from "./clientFlags.ts"
import { failed } from "./failure.ts"
import { toggle } from "./flags.ts"

export const yes = toggle("yes", "Do not ask").pipe(Flag.withAlias("y"))

/** Fails with `refusal` unless `isGiven` or the answer is yes; needs a terminal. */
export const confirm = Effect.fnUntraced(function* (
  command: string,
  isGiven: boolean,
  { question, refusal }: { readonly question: string; readonly refusal: string }
) {
  if (isGiven) return
  if (!process.stdin.isTTY)
    return yield* wrongUsage(command, "it asks for confirmation, and stdin is not a terminal; give --yes")
  const answer = yield* Effect.callback<string>((resume) => {
    const asking = Readline.createInterface({ input: process.stdin, output: process.stderr, terminal: false })
    // End of input means no.
    asking.once("close", () => resume(Effect.succeed("")))
    asking.question(`${question} [y/N] `).then(
      (text) => {
        resume(Effect.succeed(text))
        asking.close()
      },
      () => resume(Effect.succeed(""))
    )
    return Effect.sync(() => asking.close())
  })
  if (!/^y(es)?$/i.test(answer.trim())) return yield* failed(`${command} refused`, refusal)
})

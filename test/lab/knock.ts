import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import type { Knocked, Knocks } from "../support/knocker.ts"
import type { Namespace } from "./Namespace.ts"

const longMillis = 300_000
const program = fileURLToPath(new URL("../support/knocker.ts", import.meta.url))

/** Starts `knocker.ts` in a namespace; the returned effect ends it, and returns what it saw. */
export const knock = Effect.fnUntraced(function* (from: Namespace, knocks: Knocks) {
  const running = yield* from.spawn(process.execPath, [program, JSON.stringify(knocks)])
  yield* running.waitForLine("knocking", { timeoutMillis: longMillis })
  return Effect.gen(function* () {
    yield* running.closeInput
    return JSON.parse(yield* running.waitForLine(/^\{/, { timeoutMillis: longMillis })) as Knocked
  })
})

/**
 * The Engine's start, where it sends no `Plugin.Activate`: a managed plugin gets none, since its `config.json` says
 * what it implements. The Engine writes its pidfile anew at each start, before it starts its plugins.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"
import { readIfThereUnsafe } from "../node/FileText.ts"
import { writeAtomicallyUnsafe } from "../node/StateDirectory.ts"
import { type CommandFailed, failed } from "./failure.ts"

/**
 * Notices a start of the Engine as its `Plugin.Activate` would, where the pidfile is another than at the last call. A
 * restart of this process alone changes nothing.
 */
export const noticeEngineStart = Effect.fnUntraced(function* (
  pidFile: string,
  stateDirectory: string
): Effect.fn.Return<void, CommandFailed, Driver> {
  // Which start was noticed last.
  const seen = Path.join(stateDirectory, "engine")
  const attempt = <A>(run: () => A) =>
    Effect.try({
      try: run,
      catch: (error) => failed("reading --engine-pidfile", (error as Error).message)
    })
  const start = yield* attempt(
    () => `${Fs.readFileSync(pidFile, "utf8").trim()} ${Fs.statSync(pidFile).mtimeMs}`
  )
  if ((yield* attempt(() => readIfThereUnsafe(seen))) === start) return
  yield* (yield* Driver).activated ?? Effect.void
  yield* attempt(() => writeAtomicallyUnsafe(seen, start))
})

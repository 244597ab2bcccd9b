/** The port mapper of `test/conformance/reference`, built by Go and served for one test. */
import { execFileSync, spawn } from "node:child_process"
import * as Path from "node:path"
import { Effect } from "effect"
import { temporaryFolder } from "./folders.ts"

const source = Path.join(import.meta.dirname, "../conformance/reference")

/** The socket on which the reference serves until the scope closes. */
export const reference = Effect.gen(function* () {
  const path = yield* temporaryFolder
  const program = Path.join(path, "reference")
  const socket = Path.join(path, "reference.sock")
  yield* Effect.sync(() => execFileSync("go", ["build", "-o", program, "."], { cwd: source }))
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(program, [socket], { stdio: ["ignore", "pipe", "inherit"] })),
    (running) => Effect.sync(() => running.kill())
  )
  yield* Effect.callback<void>((resume) => void child.stdout.once("data", () => resume(Effect.void)))
  return socket
})

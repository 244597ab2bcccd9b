/** Folders that are removed after the test. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect, type Scope } from "effect"

export const temporaryFolder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-test-"))),
  (path) =>
    Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }))
)

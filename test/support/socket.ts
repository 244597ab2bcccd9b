/** A plugin on a Unix socket of its own, for as long as the test's scope. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { Driver } from "../../src/protocol/Driver.ts"

export const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

/** The path of the socket. */
export const socketFor = Effect.fnUntraced(function* (
  driver: Driver["Service"],
  options: Parameters<typeof serveUnix>[1] = {}
) {
  const path = Path.join(yield* temporaryFolder, "p.sock")
  yield* Effect.orDie(Effect.provideService(serveUnix(path, options), Driver, driver))
  return path
})

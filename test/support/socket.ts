/** A plugin on its own Unix socket, for the test's scope. */
import * as Path from "node:path"
import { Effect } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { temporaryFolder } from "./folders.ts"

export { temporaryFolder }

/** The path of the socket. */
export const socketFor = Effect.fnUntraced(function* (
  driver: Driver["Service"],
  options: Parameters<typeof serveUnix>[1] = {}
) {
  const path = Path.join(yield* temporaryFolder, "p.sock")
  yield* Effect.orDie(Effect.provideService(serveUnix(path, options), Driver, driver))
  return path
})

/**
 * The whole mapper inside your own program: `node embedded.ts SOCKET STATE` serves it until it is stopped. The
 * folder STATE keeps reserved ports and recorded mappings. Without root, or with `mode: "proxy"`, it touches no
 * kernel table.
 */
import { Effect } from "effect"
import { serveUnix } from "portmapper/docker"
import { hostLayer } from "portmapper/host"

const [socket = "mapper.sock", stateDirectory = "state"] = process.argv.slice(2)
const serving = Effect.gen(function* () {
  yield* serveUnix(socket)
  yield* Effect.log(`listening on ${socket}`)
  yield* Effect.never
})
const fiber = Effect.runFork(
  Effect.scoped(serving).pipe(Effect.provide(hostLayer({ stateDirectory, mode: "proxy" })))
)
process.once("SIGTERM", () => fiber.interruptUnsafe())

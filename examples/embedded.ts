/**
 * The whole mapper inside a program of one's own: `node embedded.ts SOCKET STATE` serves it until it is stopped. Ports stay
 * reserved and mappings recorded in the folder STATE; without root, or with `mode: "proxy"`, no kernel table is touched.
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

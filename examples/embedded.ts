/**
 * The whole mapper inside your own program: `node embedded.ts SOCKET STATE` serves it until it is stopped. The
 * folder STATE keeps reserved ports and recorded mappings. Without root, or with `mode: "proxy"`, it touches no
 * kernel table. If it can't serve it logs why and exits with status 1; SIGINT and SIGTERM close the socket first.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect } from "effect"
import { serveUnix } from "portmapper/docker"
import { hostLayer } from "portmapper/host"

const [socket = "mapper.sock", stateDirectory = "state"] = process.argv.slice(2)
const serving = Effect.gen(function* () {
  yield* serveUnix(socket)
  yield* Effect.log(`listening on ${socket}`)
  yield* Effect.never
})
NodeRuntime.runMain(Effect.scoped(serving).pipe(Effect.provide(hostLayer({ stateDirectory, mode: "proxy" }))))

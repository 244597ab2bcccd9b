/** `portmapper serve`: the plugin, until SIGTERM or SIGINT. */
import { Console, Effect, Layer, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { Driver } from "../../src/protocol/Driver.ts"
import { serveUnix } from "../docker/PluginSocket.ts"
import { mapperLayer } from "./layers.ts"
import { loggingLayer } from "./logging.ts"
import * as Options from "./options.ts"
import { releaseAll } from "./release.ts"

const flags = {
  name: Options.name,
  socket: Options.socket,
  group: Options.group,
  state: Options.state,
  mode: Options.mode,
  ephemeral: Options.ephemeral,
  acceptFwmark: Options.acceptFwmark,
  releaseOnExit: Flag.Boolean("release-on-exit").pipe(
    Flag.withDescription("Unmap everything at the end; else ports stay published for the successor"),
    Flag.withDefault(false)
  ),
  logFormat: Options.logFormat
}

export const serve = Command.make("serve", flags, (options) =>
  Effect.gen(function* () {
    const socket = Options.socketOf(options)
    const driver = yield* Driver
    if (options.releaseOnExit) yield* Effect.addFinalizer(() => releaseAtEnd(driver))
    yield* serveUnix(socket, {
      groupId: Option.getOrUndefined(options.group),
      folderMode: Options.folderMode(),
      pages: { "/healthz": Effect.succeed({ contentType: "text/plain; charset=utf-8", body: "ok\n" }) }
    })
    yield* Console.error(`listening on ${socket}`)
    return yield* Effect.never
  }).pipe(Effect.scoped)
).pipe(
  Command.withDescription("Serve the plugin until SIGTERM"),
  Command.provide(({ name, socket, state, mode, ephemeral, acceptFwmark, logFormat }) =>
    mapperLayer({
      stateDirectory: Options.stateOf({ name, socket, state }),
      mode: Option.getOrUndefined(mode),
      ephemeral: Option.getOrUndefined(ephemeral),
      acceptMark: Option.getOrUndefined(acceptFwmark)
    }).pipe(Layer.provideMerge(loggingLayer(logFormat)))
  )
)

const releaseAtEnd = (driver: Driver["Service"]) =>
  releaseAll(driver).pipe(
    Effect.flatMap((count) => Effect.logInfo(`released ${count} mappings`)),
    Effect.catch((error) => Effect.logError(`releasing at the end: ${error.message}`))
  )

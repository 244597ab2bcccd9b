/** `portmapper serve`: the plugin, until SIGTERM or SIGINT. */
import { Console, Effect, Layer } from "effect"
import { Command, Flag } from "effect/cli"
import { CallObserver } from "../../src/protocol/CallObserver.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { makeMetrics } from "../docker/Metrics.ts"
import { announce, takeNotify } from "../docker/Systemd.ts"
import { sendUnixDatagram } from "../linux/UnixDatagram.ts"
import { checkUsage, listenerFlags, serveListeners } from "./listeners.ts"
import { loggingLayer } from "./logging.ts"
import * as Options from "./options.ts"
import { releaseAll } from "./release.ts"

const flags = {
  ...listenerFlags,
  ...Options.mapperFlags,
  releaseOnExit: Flag.Boolean("release-on-exit").pipe(
    Flag.withDescription("Unmap everything at the end; else ports stay published for the successor"),
    Flag.withDefault(false)
  ),
  logFormat: Options.logFormat
}

export const serve = Command.make("serve", flags, (options) =>
  Effect.gen(function* () {
    const driver = yield* Driver
    if (options.releaseOnExit) yield* Effect.addFinalizer(() => releaseAtEnd(driver))
    const metrics = makeMetrics()
    const listeners = yield* serveListeners(options, {
      pages: {
        "/healthz": Effect.succeed({ contentType: "text/plain; charset=utf-8", body: "ok\n" }),
        "/metrics": metrics.page
      }
    }).pipe(Effect.provideService(CallObserver, metrics.observe))
    for (const listener of listeners) yield* Console.error(`listening on ${listener}`)
    const notify = yield* takeNotify(sendUnixDatagram)
    yield* announce(notify, `listening on ${listeners.join(", ")}`)
    return yield* Effect.never
  }).pipe(Effect.scoped)
).pipe(
  Command.withDescription("Serve the plugin until SIGTERM"),
  Command.provide((options) =>
    Layer.unwrap(
      Effect.gen(function* () {
        // Wrong usage is told before the mapper touches the host.
        yield* checkUsage(options)
        // Loaded by those who serve: the other commands start the sooner.
        const { mapperLayer } = yield* Effect.promise(() => import("./layers.ts"))
        return mapperLayer(Options.mapperOptions(options))
      })
    ).pipe(Layer.provideMerge(loggingLayer(options.logFormat)))
  )
)

const releaseAtEnd = (driver: Driver["Service"]) =>
  releaseAll(driver).pipe(
    Effect.flatMap((count) => Effect.logInfo(`released ${count} mappings`)),
    Effect.catch((error) => Effect.logError(`releasing at the end: ${error.message}`))
  )

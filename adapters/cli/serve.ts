/** `portmapper serve`: the plugin, until SIGTERM or SIGINT. */
import { Console, Effect, Layer, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { CallObserver } from "../../src/protocol/CallObserver.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { makeMetrics } from "../docker/Metrics.ts"
import { announce, takeNotify } from "../docker/Systemd.ts"
import { defaultMark } from "../linux/DockerUser.ts"
import { sendUnixDatagram } from "../linux/UnixDatagram.ts"
import * as EngineFlags from "./engineFlags.ts"
import { WrongUsage } from "./failure.ts"
import { checkUsage, listenerFlags, serveListeners } from "./listeners.ts"
import { loggingLayer } from "./logging.ts"
import * as Options from "./options.ts"
import { releaseAtEnd } from "./release.ts"

const flags = {
  ...listenerFlags,
  ...Options.mapperFlags,
  watch: Flag.Boolean("watch").pipe(
    Flag.withDescription("Also publish what containers ask for by portmapper.publish labels"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  engine: EngineFlags.engine,
  trustImageLabels: EngineFlags.trustImageLabels,
  releaseOnExit: Options.releaseOnExit,
  logFormat: Options.logFormat
}

export const serve = Command.make("serve", flags, (options) =>
  Effect.gen(function* () {
    const base = yield* Driver
    if (options.releaseOnExit) yield* Effect.addFinalizer(() => releaseAtEnd(base))
    const driver = options.watch ? yield* startWatching(options) : base
    const metrics = makeMetrics()
    const listeners = yield* serveListeners(options, {
      pages: {
        "/healthz": Effect.succeed({ contentType: "text/plain; charset=utf-8", body: "ok\n" }),
        "/metrics": metrics.page
      }
    }).pipe(Effect.provideService(CallObserver, metrics.observe), Effect.provideService(Driver, driver))
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
        if (options.trustImageLabels && !options.watch)
          return yield* new WrongUsage({
            message: "--trust-image-labels: of no use without --watch; give it as well"
          })
        const engine = yield* EngineFlags.engineOf(options)
        // Loaded by those who serve: the other commands start the sooner.
        const { mapperLayer } = yield* Effect.promise(() => import("./layers.ts"))
        const { backendsOf } = yield* Effect.promise(() => import("./watching.ts"))
        return mapperLayer({
          ...mapperOptions(options),
          backends: asksEngine(options) ? backendsOf(engine) : undefined
        })
      })
    ).pipe(Layer.provideMerge(loggingLayer(options.logFormat)))
  )
)

interface ServeFlags extends EngineFlags.EngineFlags, MapperFlags {
  readonly watch: boolean
  readonly tcp: Option.Option<unknown>
  readonly releaseOnExit: boolean
}

type MapperFlags = Parameters<typeof Options.mapperOptions>[0]

/** Where nothing else is said, the Engine that finds its plugins on this host is the one to ask. */
const asksEngine = (options: ServeFlags): boolean =>
  options.watch ||
  EngineFlags.isEngineNamed(options) ||
  (Options.isRoot() && Option.isNone(options.socket) && Option.isNone(options.tcp))

const mapperOptions = (options: ServeFlags) => {
  const given = Options.mapperOptions(options)
  return options.watch ? Options.withDockerUser(given, defaultMark) : { ...given, dockerUserMark: undefined }
}

const startWatching = Effect.fnUntraced(function* (options: ServeFlags) {
  const engine = yield* EngineFlags.engineOf(options)
  const { releaseFilter, watching } = yield* Effect.promise(() => import("./watching.ts"))
  const { acceptMark, dockerUserMark, stateDirectory } = mapperOptions(options)
  if (options.releaseOnExit) yield* Effect.addFinalizer(() => releaseFilter)
  const { trustImageLabels } = options
  return yield* watching({ engine, trustImageLabels, stateDirectory, mark: acceptMark ?? dockerUserMark })
})

/** `portmapper serve`: the plugin, until SIGTERM or SIGINT, or until a successor has taken over. */
import { Console, Effect, Option } from "effect"
import { Command } from "effect/cli"
import { defaultMark } from "../linux/nft/DockerUser.ts"
import * as ClusterFlags from "./clusterFlags.ts"
import * as EngineFlags from "./engineFlags.ts"
import { useless } from "./failure.ts"
import { type Given, optionalText, toggle } from "./flags.ts"
import { hangups } from "./hangups.ts"
import { checkUsage } from "./listeners.ts"
import * as Options from "./options.ts"
import { settingsText } from "./printSettings.ts"
import { haveVariables, printSettings, settings } from "./settings.ts"
import { observedLayer } from "./telemetry.ts"

const flags = {
  ...Options.listenerFlags,
  ...Options.mapperFlags,
  ...ClusterFlags.clusterFlags,
  watch: toggle("watch", "Also publish what containers ask for by portmapper.publish labels"),
  ...EngineFlags.engineFlags,
  enginePidfile: optionalText(
    "engine-pidfile",
    "FILE",
    "The Engine's --pidfile, which tells of its start where it sends no Plugin.Activate: to a managed plugin"
  ),
  takeover: Options.takeover,
  grace: Options.grace,
  releaseOnExit: Options.releaseOnExit,
  metrics: Options.metrics,
  logFormat: Options.logFormat
}

const allFlags = { ...settings(flags), printSettings: printSettings(flags) }

export const serve = Command.make("serve", allFlags, (options) =>
  Effect.gen(function* () {
    if (options.printSettings !== undefined) {
      yield* Console.log(settingsText(options.printSettings, options, process.env))
      yield* ClusterFlags.clusterOf(options)
      return yield* checkUsage(options)
    }
    // Report wrong usage before the mapper touches the host.
    yield* checkUsage(options)
    if (options.trustImageLabels && !options.watch) return yield* useless(["--trust-image-labels"], "--watch")
    const cluster = yield* ClusterFlags.clusterOf(options)
    const renewals = yield* hangups
    const engine = yield* EngineFlags.engineOf(options)
    // Loaded only here, so that the other commands start faster.
    const { serveUntilSucceeded } = yield* Effect.promise(() => import("./serving.ts"))
    const { backendsOf } = yield* Effect.promise(() => import("./watching.ts"))
    yield* serveUntilSucceeded({
      listeners: options,
      mapper: {
        ...mapperOptions(options),
        backends: asksEngine(options) ? backendsOf(engine) : undefined
      },
      cluster: cluster && {
        options: cluster,
        join: (yield* Effect.promise(() => import("./clustering.ts"))).joinCluster
      },
      watch: options.watch ? { engine, trustImageLabels: options.trustImageLabels } : undefined,
      enginePidfile: Option.getOrUndefined(options.enginePidfile),
      takeover: options.takeover,
      grace: options.grace,
      releaseOnExit: options.releaseOnExit,
      metrics: options.metrics,
      doctorFlags: Option.match(options.engine, {
        onNone: () => [],
        onSome: (url) => ["--engine", url]
      }),
      renewals
    })
  }).pipe(Effect.scoped)
).pipe(
  Command.withDescription("Serve the plugin until SIGTERM, or until another process takes over"),
  haveVariables(flags),
  Command.provide((options) => observedLayer(options))
)

type ServeFlags = Given<typeof flags>

/** By default, the plugin asks the Engine that finds its plugins on this host. */
const asksEngine = (options: ServeFlags): boolean =>
  options.watch ||
  EngineFlags.isEngineNamed(options) ||
  (Options.isRoot() && Option.isNone(options.socket) && Option.isNone(options.tcp))

const mapperOptions = (options: ServeFlags) => {
  const given = Options.mapperOptions(options)
  return options.watch ? Options.withDockerUser(given, defaultMark) : { ...given, dockerUserMark: undefined }
}

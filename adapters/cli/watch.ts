/**
 * `portmapper watch`: a mapper that publishes by containers' labels only; no Engine calls it. The other commands
 * reach it on its own socket in the state directory.
 */
import * as Path from "node:path"
import { Console, Effect, Layer, Option } from "effect"
import { Command } from "effect/cli"
import { Driver } from "../../src/protocol/Driver.ts"
import { releaseAtEnd } from "../../src/protocol/ReleaseAll.ts"
import { serveUnix } from "../docker/PluginSocket.ts"
import { announce, takeNotify } from "../docker/Systemd.ts"
import { defaultMark } from "../linux/nft/DockerUser.ts"
import { sendUnixDatagram } from "../linux/sockets/UnixDatagram.ts"
import * as EngineFlags from "./engineFlags.ts"
import { optionalText } from "./flags.ts"
import * as Options from "./options.ts"
import { haveVariables, settings } from "./settings.ts"
import { exporter, observedLayer } from "./telemetry.ts"

const flags = {
  ...EngineFlags.engineFlags,
  name: Options.listenerFlags.name,
  socket: optionalText(
    "socket",
    "PATH",
    "Where the other commands reach it (watch.sock in the state directory)"
  ),
  group: Options.listenerFlags.group,
  ...Options.mapperFlags,
  releaseOnExit: Options.releaseOnExit,
  logFormat: Options.logFormat
}

export const watch = Command.make("watch", settings(flags), (options) =>
  Effect.gen(function* () {
    const base = yield* Driver
    const engine = yield* EngineFlags.engineOf(options)
    const { releaseFilter, watching } = yield* Effect.promise(() => import("./watching.ts"))
    const { acceptMark, dockerUserMark, stateDirectory } = mapperOptions(options)
    if (options.releaseOnExit)
      yield* Effect.addFinalizer(() => Effect.andThen(releaseAtEnd(base), releaseFilter))
    const { trustImageLabels } = options
    const mark = acceptMark ?? dockerUserMark
    const driver = yield* watching({ engine, trustImageLabels, stateDirectory, mark })
    const path = Option.getOrElse(options.socket, () => Path.join(stateDirectory, Options.watchSocket))
    const groupId = Option.getOrUndefined(options.group)
    yield* serveUnix(path, { owner: "cli", groupId, folderMode: 0o700 }).pipe(
      Effect.provideService(Driver, driver)
    )
    yield* Console.error(`listening on ${path}`)
    yield* announce(yield* takeNotify(sendUnixDatagram), `listening on ${path}`)
    return yield* Effect.never
  }).pipe(Effect.scoped)
).pipe(
  Command.withDescription(
    "Publish what containers ask for by portmapper.publish labels, on any Docker Engine"
  ),
  haveVariables(flags),
  Command.withExamples([
    {
      command: "portmapper watch",
      description: "For containers made with docker run -l portmapper.publish=8080:80"
    },
    {
      command: "portmapper watch --engine tcp://127.0.0.1:2375",
      description: "An Engine by its port: of this host, which has to reach its containers"
    }
  ]),
  Command.provide((options) =>
    Layer.unwrap(
      Effect.gen(function* () {
        const engine = yield* EngineFlags.engineOf(options)
        const { mapperLayer } = yield* Effect.promise(() => import("../host/Mapper.ts"))
        const { backendsOf } = yield* Effect.promise(() => import("./watching.ts"))
        const decorate = (yield* exporter)?.withSteps
        return mapperLayer({ ...mapperOptions(options), backends: backendsOf(engine), decorate })
      })
    ).pipe(Layer.provideMerge(observedLayer(options)))
  )
)

/** Its socket is not a plugin's: the state lies where `serve` without options keeps it. */
const mapperOptions = (options: Options.MapperFlags) =>
  Options.withDockerUser(Options.mapperOptions({ ...options, socket: Option.none() }), defaultMark)

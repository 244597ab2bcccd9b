/** `portmapper rpc`: JSON-RPC 2.0 on stdin and stdout, for scripts. What a session maps lives as long as its input. */
import { randomBytes } from "node:crypto"
import * as Path from "node:path"
import { Effect, Layer, Option } from "effect"
import { Command } from "effect/cli"
import type { Driver } from "../../src/protocol/Driver.ts"
import { WrongUsage } from "./failure.ts"
import { optionalText, toggle } from "./flags.ts"
import * as Options from "./options.ts"
import { haveVariables, settings } from "./settings.ts"
import { exporter, observedLayer } from "./telemetry.ts"

const flags = {
  memory: toggle("memory", "Touch no kernel: everything is in memory, for trying scripts out"),
  connect: optionalText("connect", "SOCKET", "Forward to the plugin that serves this Unix socket"),
  ...Options.mapperFlags,
  logFormat: Options.logFormat
}

export const rpc = Command.make("rpc", settings(flags), ({ connect }) =>
  Effect.gen(function* () {
    const { serve } = yield* Effect.promise(() => import("../stdio/StdioServer.ts"))
    yield* endsOnHangup
    const streams = { input: process.stdin, output: process.stdout }
    if (Option.isNone(connect)) return yield* serve(streams)
    const { PluginConnection } = yield* Effect.promise(() => import("../docker/PluginDriver.ts"))
    const lost = Option.match(yield* Effect.serviceOption(PluginConnection), {
      onNone: () => Effect.never,
      onSome: (connection) => connection.lost
    })
    // The plugin may have other sessions.
    const owner = `session:${randomBytes(6).toString("hex")}`
    yield* Effect.raceFirst(serve({ ...streams, owner }), lost)
  }).pipe(Effect.scoped)
).pipe(
  Command.withDescription("Answer JSON-RPC 2.0 on stdin and stdout, one message a line"),
  haveVariables(flags),
  Command.withExamples([
    {
      command: `echo '{"jsonrpc":"2.0","id":1,"method":"ListPorts","params":{}}' | portmapper rpc --connect /run/docker/plugins/portmapper.sock`,
      description: "Ask a running plugin what is mapped"
    }
  ]),
  Command.provide((options) =>
    Layer.unwrap(
      driverLayer(Option.isSome(options.connect) ? options.connect.value : undefined, options.memory, () =>
        Options.mapperOptions({ ...options, name: "portmapper", socket: Option.none() })
      )
    ).pipe(Layer.provideMerge(observedLayer(options)))
  )
)

/** SIGHUP is the end of the input, as when the terminal is gone, until the scope closes. */
const endsOnHangup = Effect.acquireRelease(
  Effect.sync(() => {
    const end = () => void process.stdin.destroy()
    process.on("SIGHUP", end)
    return end
  }),
  (end) => Effect.sync(() => process.off("SIGHUP", end))
)

const driverLayer = Effect.fnUntraced(function* (
  socketPath: string | undefined,
  memory: boolean,
  ofThisHost: () => ReturnType<typeof Options.mapperOptions>
): Effect.fn.Return<Layer.Layer<Driver, { readonly message: string }>, WrongUsage> {
  if (memory && socketPath !== undefined)
    return yield* new WrongUsage({ message: "--memory and --connect: choose one" })
  if (memory) {
    const { PortMapper } = yield* Effect.promise(() => import("../../src/mapper/PortMapper.ts"))
    const { mode, ephemeral, acceptMark } = ofThisHost()
    return PortMapper.layerMemory(
      { ...(mode === undefined ? {} : { defaultMode: mode }), marksAccepted: acceptMark !== undefined },
      undefined,
      { ephemeral }
    )
  }
  if (socketPath !== undefined) {
    const { layerDriver } = yield* Effect.promise(() => import("../docker/PluginDriver.ts"))
    return layerDriver(socketPath)
  }
  const { mapperLayer } = yield* Effect.promise(() => import("../host/Mapper.ts"))
  const { refuseAmidHandover } = yield* Effect.promise(() => import("../upgrade/Successor.ts"))
  const options = ofThisHost()
  const handover = Path.join(options.stateDirectory, Options.handoverSocket)
  const decorate = (yield* exporter)?.withSteps
  return mapperLayer({ ...options, decorate, onLocked: refuseAmidHandover(handover) })
})

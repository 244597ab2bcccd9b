/** `portmapper rpc`: JSON-RPC 2.0 on stdin and stdout, for scripts. What a session maps lives as long as its input. */
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

export const rpc = Command.make("rpc", settings(flags), () =>
  Effect.gen(function* () {
    const { serve } = yield* Effect.promise(() => import("../stdio/StdioServer.ts"))
    yield* serve({ input: process.stdin, output: process.stdout })
  })
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

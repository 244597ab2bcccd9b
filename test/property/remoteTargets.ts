/** A fresh in-memory plugin behind each of our transports, as a target of the harness. */
import * as Path from "node:path"
import { Context, Effect, Layer, Result, type Scope } from "effect"
import { httpWire } from "../../adapters/docker/HttpWire.ts"
import { parsePluginUrl, socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { serveTcp } from "../../adapters/docker/PluginTcp.ts"
import { toWebHandler } from "../../adapters/docker/WebHandler.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import {
  type ModelHost,
  type RemoteTarget,
  rpcTarget,
  type Wire,
  wireTarget
} from "../../src/testing/index.ts"
import { temporaryFolder } from "../support/folders.ts"
import { openSession } from "../support/session.ts"

type Open = (host: ModelHost) => Effect.Effect<RemoteTarget, never, Scope.Scope>

const driverOf = ({ capabilities, ephemeral }: ModelHost) =>
  Effect.orDie(Layer.build(PortMapper.layerMemory(capabilities, undefined, { ephemeral: ephemeral.range })))

export const remoteTargets: Readonly<Record<string, Open>> = {
  stdio: Effect.fnUntraced(function* (host) {
    const session = yield* Effect.provide(openSession, yield* driverOf(host))
    return rpcTarget((line) =>
      Effect.andThen(
        session.send(line),
        Effect.map(session.next, (answer) => JSON.stringify(answer))
      )
    )
  }),

  "a Unix socket": Effect.fnUntraced(function* (host) {
    const socketPath = Path.join(yield* temporaryFolder, "plugin.sock")
    yield* Effect.orDie(Effect.provide(serveUnix(socketPath), yield* driverOf(host)))
    return wireTarget(httpWire(socketAddress(socketPath)))
  }),

  TCP: Effect.fnUntraced(function* (host) {
    const served = serveTcp({ host: "127.0.0.1", port: 0 })
    const { port } = yield* Effect.orDie(Effect.provide(served, yield* driverOf(host)))
    return wireTarget(httpWire(Result.getOrThrow(parsePluginUrl(`http://127.0.0.1:${port}`, false))))
  }),

  "a fetch handler": Effect.fnUntraced(function* (host) {
    const handler = toWebHandler(Context.get(yield* driverOf(host), Driver))
    yield* Effect.addFinalizer(() => Effect.promise(handler.dispose))
    const send: Wire["send"] = ({ path, headers, body }) =>
      Effect.promise(async () => {
        const request = new Request(`http://plugin.example${path}`, {
          method: "POST",
          headers: headers.map(([name, value]): [string, string] => [name, value]),
          body
        })
        const answer = await handler(request)
        return {
          status: answer.status,
          headers: Object.fromEntries(answer.headers),
          body: await answer.text()
        }
      })
    return wireTarget({ send })
  })
}

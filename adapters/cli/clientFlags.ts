/** What the commands that call a running plugin share: which plugin, how to reach it, and how to print answers. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Console, Effect, Option, Result, type Scope } from "effect"
import type { ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"
import { type PluginAddress, parsePluginUrl, socketAddress } from "../docker/PluginAddress.ts"
import { makeClient, type PluginClient } from "../docker/PluginClient.ts"
import type { TlsFileError } from "../node/HttpClient.ts"
import { WrongUsage } from "./failure.ts"
import { type Given, optionalText, toggle } from "./flags.ts"
import { defaultSocket, defaultState, pluginName, watchSocket } from "./options.ts"
import { usageText } from "./presenter.ts"

/** The owner of mappings made by these commands. */
export const owner = "cli"

export const clientFlags = {
  name: pluginName("Ask the plugin of this name (portmapper)"),
  socket: optionalText("socket", "PATH", "Ask the plugin on this Unix socket"),
  url: optionalText("url", "URL", "Ask the plugin at this URL: http://, https://, tcp:// or unix://"),
  tlsCa: optionalText("tls-ca", "FILE", "With --url: trust this authority (PEM), not the system's"),
  tlsCert: optionalText("tls-cert", "FILE", "With --url: the client's certificate (PEM)"),
  tlsKey: optionalText("tls-key", "FILE", "With --url: the key of that certificate (PEM)"),
  json: toggle("json", "Print one JSON document and nothing else")
}

export type ClientFlags = Given<typeof clientFlags>

export const wrongUsage = (command: string, what: string): WrongUsage =>
  new WrongUsage({ message: usageText(["portmapper", command], what) })

/** A client of the plugin that the options name. */
export const clientOf = (
  command: string,
  flags: ClientFlags
): Effect.Effect<PluginClient, WrongUsage | TlsFileError, Scope.Scope> =>
  Effect.gen(function* () {
    const [ca, cert, key] = [flags.tlsCa, flags.tlsCert, flags.tlsKey].map(Option.getOrUndefined)
    const address = yield* addressOf(command, flags, (ca ?? cert ?? key) !== undefined)
    if ((cert === undefined) !== (key === undefined))
      return yield* wrongUsage(command, "--tls-cert and --tls-key go together")
    return yield* makeClient(address, { owner, tls: { ca, cert, key } })
  })

/** An interrupted command has failed, whatever it undid. */
export const interruptedIsFailure = Effect.onInterrupt(() =>
  Effect.sync(() => {
    process.exitCode = 130
  })
)

/** With `--json` a failure is also a JSON document, like the protocol's own, besides the line on stderr. */
export const answering =
  (json: boolean) =>
  <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    json
      ? Effect.tapError(effect, (error) =>
          error instanceof WrongUsage ? Effect.void : Console.log(JSON.stringify({ Err: error.message }))
        )
      : effect

/** What a command unmapped or drained, as `--json` prints it. */
export const bindingJson = ({ protocol, host, port, backend }: ReleasedBinding) => ({
  Proto: protocolNumber[protocol],
  FrontendIP: host.text,
  FrontendPort: port,
  BackendIP: backend.address?.text ?? "",
  BackendPort: backend.port
})

const addressOf = (
  command: string,
  { name, socket, url }: ClientFlags,
  tls: boolean
): Effect.Effect<PluginAddress, WrongUsage> => {
  if (Option.isSome(url)) {
    if (Option.isSome(socket)) return wrongUsage(command, "give --socket or --url, not both")
    return Effect.fromResult(
      Result.mapError(parsePluginUrl(url.value, tls), (rule) =>
        wrongUsage(command, `--url "${url.value}": ${rule}`)
      )
    )
  }
  if (tls) return wrongUsage(command, "the TLS files go with --url")
  return Effect.succeed(socketAddress(Option.getOrElse(socket, () => findSocket(name))))
}

/** Where this user's `serve` or `watch` listens; otherwise where root's does, which a group may be allowed to use. */
const findSocket = (name: string): string => {
  const own = defaultSocket(name)
  const candidates = [
    own,
    Path.join(defaultState(own), watchSocket),
    `/run/docker/plugins/${name}.sock`,
    `/run/docker/plugins/${name}/${name}.sock`
  ]
  return candidates.find((path) => Fs.existsSync(path)) ?? own
}

/**
 * A plugin in its own process: `node plugin.ts OPTIONS`, with the options as JSON. Prints events on stdout, one
 * JSON document a line: `{"listening": …, "pid": …}` once it serves, `{"activated": true}` at each activation.
 */
import { spawnSync } from "node:child_process"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect } from "effect"
import { serveFd } from "../../adapters/docker/InheritedSocket.ts"
import { engineUrl, serveTcp, type TcpOptions } from "../../adapters/docker/PluginTcp.ts"
import { type ClientTls, writeSpec } from "../../adapters/docker/SpecFile.ts"
import {
  announce,
  type SendUnixDatagram,
  takeNotify,
  takePassedSockets
} from "../../adapters/docker/Systemd.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { granting } from "./drivers.ts"

export interface PluginOptions {
  /** Serves a TCP port, described in a folder. */
  readonly tcp?: TcpOptions & { readonly name: string; readonly folder: string; readonly client?: ClientTls }
  /** Serves the sockets that systemd passes, and notifies it. */
  readonly systemd?: Pick<TcpOptions, "tls">
}

const emit = (event: object) => Effect.sync(() => void process.stdout.write(`${JSON.stringify(event)}\n`))

/** Node has no Unix datagram sockets: Python sends it. */
const send: SendUnixDatagram = (path, bytes) =>
  Effect.suspend(() => {
    const script =
      "import json,socket,sys; p,b=json.load(sys.stdin); socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM).sendto(b.encode(),p)"
    const input = JSON.stringify([path, new TextDecoder().decode(bytes)])
    const { status, stderr } = spawnSync("python3", ["-c", script], { input, encoding: "utf8" })
    return status === 0 ? Effect.void : Effect.fail({ message: stderr.trim().split("\n").at(-1) ?? "" })
  })

const options: PluginOptions = JSON.parse(process.argv[2] ?? "{}")

const main = Effect.gen(function* () {
  const listening: Array<unknown> = []
  if (options.tcp !== undefined) {
    const { client, folder, name, ...tcp } = options.tcp
    const served = yield* serveTcp(tcp)
    const spec = yield* writeSpec({ name, folder, url: engineUrl(served), tls: client })
    listening.push({ ...served, spec })
  }
  if (options.systemd !== undefined) {
    for (const socket of yield* takePassedSockets())
      listening.push({ ...socket, ...(yield* serveFd(socket.fd, options.systemd)) })
    yield* announce(yield* takeNotify(send), `listening on ${listening.length} sockets`)
  }
  const environment = Object.keys(process.env).filter((name) => /^(LISTEN|NOTIFY)_/.test(name))
  yield* emit({ listening, environment, pid: process.pid })
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.provideService(Driver, Driver.of({ ...granting, activated: emit({ activated: true }) })),
  Effect.tapError((error) => emit({ failed: error.message }))
)

NodeRuntime.runMain(main, { disableErrorReporting: true })

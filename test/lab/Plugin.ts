/**
 * The real plugin, as `npm start` runs it, inside the host of a lab: its socket is in a temporary folder, its tables
 * and ports are in the namespace.
 */
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"
import { temporaryFolder } from "../support/folders.ts"
import { type HttpAnswer, request } from "../support/http.ts"
import { wireEntry } from "../support/requests.ts"
import type { Namespace } from "./Namespace.ts"
import { LabError } from "./Process.ts"
import { patienceMillis } from "./patience.ts"
import type { Running } from "./Running.ts"

export interface Plugin {
  readonly socket: string
  readonly folder: string
  readonly process: Running
  /** One call, named by the last part of its path; any status is a success. */
  readonly call: (method: string, body: unknown) => Effect.Effect<HttpAnswer, LabError>
  /** Maps a group of entries in the form `tcp 0.0.0.0:8080 172.31.0.2:80`; a port may be `8000-8010` or `0`. */
  readonly map: (
    entries: ReadonlyArray<string>,
    labels?: Record<string, string>
  ) => Effect.Effect<Answered, LabError>
  readonly unmap: (bindings: ReadonlyArray<WireBinding>) => Effect.Effect<HttpAnswer, LabError>
}

export interface WireBinding {
  readonly Proto: number
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly BackendIP: string
  readonly BackendPort: number
  readonly DiscardReq: boolean
  readonly AllowForwarding: boolean
  readonly NAT: unknown
  readonly Error: string | null
}

export interface Answered {
  readonly status: number
  readonly error: string
  readonly bindings: ReadonlyArray<WireBinding>
}

/** A part of a row of `ListPorts`. */
export interface ListedPort {
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly BackendIP: string
  readonly BackendPort: number
  readonly State: string
  readonly Owner: string
  readonly Service: string
  readonly Container: string
  readonly Open: number | null
  readonly Reason: string
  readonly Labels: Readonly<Record<string, string>>
}

export interface PluginOptions {
  /** Options of `portmapper serve` besides its socket. */
  readonly arguments?: ReadonlyArray<string>
  /** Reuses the socket and the state of an earlier start. */
  readonly folder?: string
  readonly env?: Readonly<Record<string, string>>
  /** A prefix of the command, such as `prlimit --nofile=512`. */
  readonly wrapper?: ReadonlyArray<string>
  /** The program for Node; by default the sources. */
  readonly program?: ReadonlyArray<string>
  /** Called as soon as the process runs, before it serves. */
  readonly onSpawn?: (running: Running) => void
  /** How long its start may take, in milliseconds. Default 60,000. */
  readonly startMillis?: number
}

export const start = Effect.fn("Plugin.start")(function* (
  host: Namespace,
  options: PluginOptions = {}
): Effect.fn.Return<Plugin, LabError, Scope.Scope> {
  const folder = options.folder ?? (yield* temporaryFolder)
  const socket = join(folder, "portmapper.sock")
  const state = join(folder, "state")
  const serve = [
    ...(options.program ?? [executable]),
    "serve",
    "--socket",
    socket,
    "--state",
    state,
    ...(options.arguments ?? [])
  ]
  const [command, ...before] = [...(options.wrapper ?? []), process.execPath]
  const running = yield* host.spawn(command ?? process.execPath, [...before, ...serve], {
    label: "portmapper serve",
    ...(options.env === undefined ? {} : { env: options.env })
  })
  options.onSpawn?.(running)
  yield* running.waitForLine(/^listening on /, { timeoutMillis: options.startMillis ?? patienceMillis })

  const call: Plugin["call"] = (method, body) =>
    Effect.tryPromise({
      try: () =>
        request(socket, `/PortMapper.${method}`, typeof body === "string" ? body : JSON.stringify(body)),
      catch: (error) => new LabError({ operation: method, detail: String(error) })
    })
  return {
    socket,
    folder,
    process: running,
    call,
    map: (entries, labels = {}) =>
      Effect.map(call("MapPorts", { Reqs: entries.map(wireEntry), Labels: labels }), ({ status, body }) => {
        const answer = JSON.parse(body) as {
          readonly PortBindings?: ReadonlyArray<WireBinding>
          readonly Err: string
        }
        return { status, error: answer.Err, bindings: answer.PortBindings ?? [] }
      }),
    unmap: (bindings) =>
      call("UnmapPorts", {
        PortBindings: bindings
          .filter(({ DiscardReq }) => !DiscardReq)
          .map((binding) => ({ ...binding, AllowForwarding: false, NAT: null })),
        Labels: {}
      })
  }
})

export const list = (plugin: Pick<Plugin, "call">): Effect.Effect<ReadonlyArray<ListedPort>, LabError> =>
  Effect.map(
    plugin.call("ListPorts", {}),
    ({ body }) => (JSON.parse(body) as { readonly Mappings: ReadonlyArray<ListedPort> }).Mappings
  )

/** The environment of a plugin with an import before the program, such as `onOlderKernel`. */
export const importing = (name: "loadedModules" | "onOlderKernel" | "slowConntrack") => ({
  NODE_OPTIONS: `--import ${fileURLToPath(new URL(`../support/${name}.ts`, import.meta.url))}`
})

export { temporaryFolder }

const executable = fileURLToPath(new URL("../../adapters/cli/main.ts", import.meta.url))

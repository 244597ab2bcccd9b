/**
 * Asks any port-mapper plugin, ours or another, over its socket or over TCP with TLS. A client is a `Driver`, so whatever
 * serves a driver can forward to a plugin. Lenient in what it takes for an answer, as the Engine is: any Content-Type, a
 * refusal with any status but 200 or with an `Err` in a 200.
 */
import * as Fs from "node:fs"
import * as Http from "node:http"
import type * as Https from "node:https"
import { Duration, Effect, Result, Schema, type Scope } from "effect"
import {
  bindingsFollowed,
  bindingsGranted,
  followContainerRequest,
  groupsGranted,
  mapGroupsRequest,
  mapPortsRequest,
  mappingsListed,
  unmapPortsRequest
} from "../../src/protocol/ClientCalls.ts"
import { CurrentOwner, type Follow, type ListedMapping } from "../../src/protocol/Driver.ts"
import { preview } from "../../src/protocol/GoJson.ts"
import { decodeValue } from "../../src/protocol/GoSchema.ts"
import {
  ActivateResponse,
  ErrorResponse,
  ListPortsResponse,
  MapGroupsResponse,
  MapPortsResponse
} from "../../src/protocol/Messages.ts"
import type { Method } from "../../src/protocol/Operations.ts"
import type { Group, PortBinding, Release } from "../../src/protocol/PortBinding.ts"
import {
  AnswerLost,
  CallRefused,
  CannotConnect,
  type ClientError,
  NotOffered,
  NotTheProtocol,
  requestError
} from "./ClientError.ts"
import type { PluginAddress } from "./PluginAddress.ts"

export interface PluginClient {
  readonly address: PluginAddress
  /** One call as it travels: JSON text there, and the parsed JSON of a success back. */
  readonly call: (method: Method, body: string) => Effect.Effect<unknown, ClientError>
  /** What the plugin says it implements. An Engine sends this once in its life; a plugin may take us for one. */
  readonly activate: Effect.Effect<ReadonlyArray<string>, ClientError>
  readonly mapPorts: (group: Group) => Effect.Effect<ReadonlyArray<PortBinding>, ClientError>
  /** Only ours takes several groups, all of them or none; `NotOffered` of any other. */
  readonly mapTogether: (
    groups: ReadonlyArray<Group>
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, ClientError>
  readonly unmapPorts: (release: Release) => Effect.Effect<void, ClientError>
  /** Only ours follows containers, and only where it watches an Engine; `NotOffered` of any other. */
  readonly followContainer: (follow: Follow) => Effect.Effect<ReadonlyArray<PortBinding>, ClientError>
  /** Only ours knows what it has mapped; `NotOffered` of any other. */
  readonly listPorts: Effect.Effect<ReadonlyArray<ListedMapping>, ClientError>
}

/** Paths of PEM files. `ca`: whom to trust instead of the system's authorities; `cert` and `key`: who we are. */
export interface TlsFiles {
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

export interface ClientOptions {
  /** In whose name calls are made; `CurrentOwner` where `undefined`. Only ours asks. */
  readonly owner?: string | undefined
  readonly tls?: TlsFiles | undefined
  /** How many connections are kept at most. */
  readonly connections?: number | undefined
  /** How long a connection may take, and an answer; a plugin of ours bounds each call to 10 s itself. */
  readonly connectTimeoutMillis?: number | undefined
  readonly answerTimeoutMillis?: number | undefined
}

/** A file that TLS was to use can't be read. */
export class TlsFileError extends Schema.TaggedError<TlsFileError>()("TlsFileError", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.detail}`
  }
}

/** The most that is read of an answer: a list of every port of a host, each with long labels. */
const maxAnswerBytes = 256 * 1024 * 1024

/** A client whose connections are closed with the scope. Nothing is sent until it is asked something. */
export const makeClient = Effect.fnUntraced(function* (
  address: PluginAddress,
  options: ClientOptions = {}
): Effect.fn.Return<PluginClient, TlsFileError, Scope.Scope> {
  const wire = yield* openWire(address, options)
  const answerTimeout = Duration.millis(options.answerTimeoutMillis ?? 15_000)
  const where = address.text

  const call = Effect.fnUntraced(function* (
    method: Method,
    body: string
  ): Effect.fn.Return<unknown, ClientError> {
    const owner = options.owner ?? (yield* CurrentOwner)
    const { status, text } = yield* Effect.timeoutOrElse(send(wire, method, body, owner), {
      duration: answerTimeout,
      orElse: () =>
        Effect.fail(
          new AnswerLost({ where, method, detail: `none came within ${Duration.toSeconds(answerTimeout)} s` })
        )
    })
    const value = parsed(text)
    const error = Result.isSuccess(value) ? errorIn(value.success) : undefined
    if (status !== 200)
      return yield* new CallRefused({
        where,
        method,
        status,
        detail: error ?? `HTTP status ${status} ${firstLine(text)}`.trim()
      })
    if (error !== undefined) return yield* new CallRefused({ where, method, status, detail: error })
    if (Result.isSuccess(value)) return value.success
    // The Engine does not look at what a success of UnmapPorts says.
    if (method === "PortMapper.UnmapPorts") return {}
    return yield* new NotTheProtocol({ where, method, detail: preview(text, 200) })
  })

  const asked = Effect.fnUntraced(function* <T, A>(
    method: Method,
    body: unknown,
    decode: (value: unknown) => Result.Result<T, { readonly message: string }>,
    meant: (message: T) => Result.Result<A, string>
  ): Effect.fn.Return<A, ClientError> {
    const value = yield* call(method, body === undefined ? "" : `${JSON.stringify(body)}\n`)
    const message = Result.mapError(decode(value), (error) => error.message)
    return yield* Effect.fromResult(
      Result.mapError(
        Result.flatMap(message, meant),
        (detail) => new NotTheProtocol({ where, method, detail })
      )
    )
  })

  const offered = Effect.mapError((error: ClientError) =>
    error._tag === "CallRefused" && error.status === 404
      ? new NotOffered({ where, method: error.method })
      : error
  )

  return {
    address,
    call,
    activate: asked("Plugin.Activate", undefined, decodeActivate, ({ Implements }) =>
      Result.succeed(Implements ?? [])
    ),
    mapPorts: (group) =>
      asked("PortMapper.MapPorts", mapPortsRequest(group), decodeMapPorts, (answer) =>
        bindingsGranted(group, answer)
      ),
    mapTogether: (groups) =>
      offered(
        asked("PortMapper.MapGroups", mapGroupsRequest(groups), decodeMapGroups, (answer) =>
          groupsGranted(groups, answer)
        )
      ),
    unmapPorts: (release) =>
      asked("PortMapper.UnmapPorts", unmapPortsRequest(release), Result.succeed, () =>
        Result.succeed(undefined)
      ),
    followContainer: (follow) =>
      offered(
        asked("PortMapper.FollowContainer", followContainerRequest(follow), decodeMapPorts, bindingsFollowed)
      ),
    listPorts: offered(asked("PortMapper.ListPorts", {}, decodeListPorts, mappingsListed))
  }
})

const decodeActivate = decodeValue(ActivateResponse)
const decodeMapPorts = decodeValue(MapPortsResponse)
const decodeMapGroups = decodeValue(MapGroupsResponse)
const decodeListPorts = decodeValue(ListPortsResponse)
const decodeError = decodeValue(ErrorResponse)

const parsed = (text: string): Result.Result<unknown, unknown> =>
  Result.try(() => JSON.parse(text) as unknown)

const errorIn = (value: unknown): string | undefined => {
  const decoded = decodeError(value)
  return Result.isSuccess(decoded) && decoded.success.Err !== "" ? decoded.success.Err : undefined
}

const firstLine = (text: string): string => (text.trim().split("\n", 1)[0] ?? "").slice(0, 200)

/** How requests reach the plugin: everything of them that is the same each time. */
interface Wire {
  readonly address: PluginAddress
  readonly request: typeof Http.request
  readonly target: Https.RequestOptions
  readonly connectTimeoutMillis: number
}

const openWire = Effect.fnUntraced(function* (
  address: PluginAddress,
  { tls = {}, connections = 4, connectTimeoutMillis = 5_000 }: ClientOptions
): Effect.fn.Return<Wire, TlsFileError, Scope.Scope> {
  const secure = address._tag === "Net" && address.tls
  // Loaded for those who need it: a command on a Unix socket starts the sooner.
  const http = secure ? yield* Effect.promise(() => import("node:https")) : Http
  const files = secure ? yield* readTls(tls) : {}
  const agent = yield* Effect.acquireRelease(
    Effect.sync(() => new http.Agent({ keepAlive: true, maxSockets: connections })),
    (agent) => Effect.sync(() => agent.destroy())
  )
  return {
    address,
    request: http.request,
    target:
      address._tag === "Pipe"
        ? { agent, socketPath: address.path, headers: { Host: "plugin.moby.localhost" } }
        : { agent, ...files, host: address.host, port: address.port },
    connectTimeoutMillis
  }
})

const readTls = Effect.fnUntraced(function* (files: TlsFiles) {
  const read: Record<string, Buffer> = {}
  for (const name of ["ca", "cert", "key"] as const) {
    const path = files[name]
    if (path === undefined) continue
    read[name] = yield* Effect.try({
      try: () => Fs.readFileSync(path),
      catch: (error) => new TlsFileError({ path, detail: (error as Error).message })
    })
  }
  return read
})

interface Answer {
  readonly status: number
  readonly text: string
}

/**
 * Sends one request. One that met a kept connection which the plugin was just closing is sent again, once, on another:
 * the plugin never read it.
 */
const send = (
  wire: Wire,
  method: Method,
  body: string,
  owner: string,
  again = true
): Effect.Effect<Answer, ClientError> =>
  Effect.callback<Answer, ClientError | "again">((resume) => {
    const { address, target, connectTimeoutMillis } = wire
    let connected = false
    let kept = false
    const request = wire.request({
      ...target,
      method: "POST",
      path: `/${method}`,
      headers: {
        ...target.headers,
        Accept: "application/vnd.docker.plugins.v1.2+json",
        "Content-Length": Buffer.byteLength(body),
        "Portmapper-Owner": owner
      }
    })
    let timer: NodeJS.Timeout | undefined
    // A request that waits for a connection to be free is not yet connecting.
    request.once("socket", (socket) => {
      if (!socket.connecting) {
        connected = true
        kept = true
        return
      }
      timer = setTimeout(() => {
        const detail = `no connection within ${connectTimeoutMillis / 1000} s`
        resume(Effect.fail(new CannotConnect({ where: address.text, reason: "TimedOut", detail })))
        request.destroy()
      }, connectTimeoutMillis)
      socket.once(address._tag === "Net" && address.tls ? "secureConnect" : "connect", () => {
        connected = true
        clearTimeout(timer)
      })
    })
    request.once("response", (response) => {
      const chunks: Array<Buffer> = []
      let length = 0
      response.on("data", (chunk: Buffer) => {
        chunks.push(chunk)
        length += chunk.length
        if (length <= maxAnswerBytes) return
        const detail = `it is longer than ${maxAnswerBytes} bytes`
        resume(Effect.fail(new NotTheProtocol({ where: address.text, method, detail })))
        request.destroy()
      })
      response.once("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }))
      )
      response.once("error", (error) => resume(Effect.fail(requestError(address, method, error, true))))
    })
    request.on("error", (error: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      const dead = kept && (error.code === "ECONNRESET" || error.code === "EPIPE")
      resume(Effect.fail(again && dead ? "again" : requestError(address, method, error, connected)))
    })
    request.end(body)
    return Effect.sync(() => {
      clearTimeout(timer)
      request.destroy()
    })
  }).pipe(
    Effect.catch((error) => (error === "again" ? send(wire, method, body, owner, false) : Effect.fail(error)))
  )

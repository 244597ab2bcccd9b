/**
 * The client of any port-mapper plugin, ours or another, over its socket or over TCP with TLS. A client is a
 * `Driver`, so any transport that serves a driver can forward to a plugin. As lenient about answers as the Engine: it
 * accepts any Content-Type, and takes any status but 200, or an `Err` in a 200, for a refusal.
 */
import { Effect, Result, type Scope } from "effect"
import {
  bindingsFollowed,
  bindingsGranted,
  drainRequest,
  followContainerRequest,
  followInterfaceRequest,
  groupsGranted,
  mapGroupsRequest,
  mapPortsRequest,
  mappingsListed,
  unmapPortsRequest
} from "../../src/protocol/ClientCalls.ts"
import {
  CurrentOwner,
  type DrainRequest,
  type FollowRequest,
  type InterfaceRequest,
  type ListedMapping
} from "../../src/protocol/Driver.ts"
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
  type HttpAnswer,
  type HttpOptions,
  keepAliveClient,
  readTls,
  type TlsFileError,
  type TlsFiles
} from "../node/HttpClient.ts"
import { CallRefused, type ClientError, NotOffered, NotTheProtocol, requestError } from "./ClientError.ts"
import type { PluginAddress } from "./PluginAddress.ts"

export interface PluginClient {
  readonly address: PluginAddress
  /** One raw call: JSON text out, and the parsed JSON of a success back. */
  readonly call: (method: Method, body: string) => Effect.Effect<unknown, ClientError>
  /** What the plugin says it implements. An Engine sends this once in its life; a plugin may mistake us for one. */
  readonly activate: Effect.Effect<ReadonlyArray<string>, ClientError>
  readonly mapPorts: (group: Group) => Effect.Effect<ReadonlyArray<PortBinding>, ClientError>
  /** Maps several groups, all or none. Only our plugin implements this; any other: `NotOffered`. */
  readonly mapTogether: (
    groups: ReadonlyArray<Group>
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, ClientError>
  readonly unmapPorts: (release: Release) => Effect.Effect<void, ClientError>
  /** Only our plugin follows containers, and only while it watches an Engine; any other: `NotOffered`. */
  readonly followContainer: (follow: FollowRequest) => Effect.Effect<ReadonlyArray<PortBinding>, ClientError>
  /** Only our plugin follows interfaces; any other: `NotOffered`. */
  readonly followInterface: (
    follow: InterfaceRequest
  ) => Effect.Effect<ReadonlyArray<PortBinding>, ClientError>
  /** Only our plugin drains a backend; any other: `NotOffered`. */
  readonly drain: (request: DrainRequest) => Effect.Effect<ReadonlyArray<PortBinding>, ClientError>
  /** Only our plugin lists its mappings; any other: `NotOffered`. */
  readonly listPorts: Effect.Effect<ReadonlyArray<ListedMapping>, ClientError>
  /** What all hosts of the plugin's cluster have. */
  readonly listCluster: Effect.Effect<ReadonlyArray<ListedMapping>, ClientError>
}

/** Our plugin itself limits each call to 10 s. */
export interface ClientOptions
  extends Pick<HttpOptions, "connectTimeoutMillis" | "answerTimeoutMillis" | "onClosed"> {
  /** The owner that calls are made for; `CurrentOwner` if `undefined`. Only our plugin reads it. */
  readonly owner?: string | undefined
  readonly tls?: TlsFiles | undefined
  /** The most connections that are kept open. */
  readonly connections?: number | undefined
}

/** A client whose connections close with the scope. It sends nothing before the first call. */
export const makeClient = Effect.fnUntraced(function* (
  address: PluginAddress,
  options: ClientOptions = {}
): Effect.fn.Return<PluginClient, TlsFileError, Scope.Scope> {
  const tls = address._tag === "Net" && address.tls ? yield* readTls(options.tls ?? {}) : undefined
  const http = yield* keepAliveClient(address, options.connections ?? 4, { ...options, tls })
  const where = address.text

  const call: PluginClient["call"] = Effect.fnUntraced(function* (method, body) {
    const owner = options.owner ?? (yield* CurrentOwner)
    const request = {
      method: "POST",
      path: `/${method}`,
      headers: {
        ...(address._tag === "Pipe" ? { Host: "plugin.moby.localhost" } : {}),
        Accept: "application/vnd.docker.plugins.v1.2+json",
        "Portmapper-Owner": owner
      },
      body
    }
    const answer = yield* Effect.mapError(http.ask(request), (error) => requestError(address, method, error))
    return yield* Effect.fromResult(valueIn(answer, where, method))
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

  const granted = (method: Method, body: unknown) =>
    offered(asked(method, body, decodeMapPorts, bindingsFollowed))

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
    followContainer: (follow) => granted("PortMapper.FollowContainer", followContainerRequest(follow)),
    followInterface: (follow) => granted("PortMapper.FollowInterface", followInterfaceRequest(follow)),
    drain: (request) =>
      granted(request.drained ? "PortMapper.Drain" : "PortMapper.Undrain", drainRequest(request)),
    listPorts: offered(asked("PortMapper.ListPorts", {}, decodeListPorts, mappingsListed)),
    listCluster: offered(asked("PortMapper.ListPorts", { Scope: "cluster" }, decodeListPorts, mappingsListed))
  }
})

const offered = Effect.mapError((error: ClientError) =>
  error._tag === "CallRefused" && error.status === 404
    ? new NotOffered({ where: error.where, method: error.method })
    : error
)

/** The parsed JSON of a success. */
const valueIn = (
  { body, status }: HttpAnswer,
  where: string,
  method: Method
): Result.Result<unknown, ClientError> => {
  const value = Result.try(() => JSON.parse(body) as unknown)
  const error = Result.isSuccess(value) ? errorIn(value.success) : undefined
  if (status !== 200 || error !== undefined) {
    const detail = error ?? `HTTP status ${status} ${firstLine(body)}`.trim()
    return Result.fail(new CallRefused({ where, method, status, detail }))
  }
  if (Result.isSuccess(value)) return Result.succeed(value.success)
  // The Engine ignores the body of a successful UnmapPorts.
  if (method === "PortMapper.UnmapPorts") return Result.succeed({})
  return Result.fail(new NotTheProtocol({ where, method, detail: preview(body, 200) }))
}

const decodeActivate = decodeValue(ActivateResponse)
const decodeMapPorts = decodeValue(MapPortsResponse)
const decodeMapGroups = decodeValue(MapGroupsResponse)
const decodeListPorts = decodeValue(ListPortsResponse)
const decodeError = decodeValue(ErrorResponse)

const errorIn = (value: unknown): string | undefined => {
  const decoded = decodeError(value)
  return Result.isSuccess(decoded) && decoded.success.Err !== "" ? decoded.success.Err : undefined
}

const firstLine = (text: string): string => (text.trim().split("\n", 1)[0] ?? "").slice(0, 200)

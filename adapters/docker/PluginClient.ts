/**
 * Asks any port-mapper plugin, ours or another, over its socket or over TCP with TLS. A client is a `Driver`, so whatever
 * serves a driver can forward to a plugin. Lenient in what it takes for an answer, as the Engine is: any Content-Type, a
 * refusal with any status but 200 or with an `Err` in a 200.
 */
import { Effect, Result, type Scope } from "effect"
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

/** A plugin of ours bounds each call to 10 s itself. */
export interface ClientOptions extends Pick<HttpOptions, "connectTimeoutMillis" | "answerTimeoutMillis"> {
  /** In whose name calls are made; `CurrentOwner` where `undefined`. Only ours asks. */
  readonly owner?: string | undefined
  readonly tls?: TlsFiles | undefined
  /** How many connections are kept at most. */
  readonly connections?: number | undefined
}

/** A client whose connections are closed with the scope. Nothing is sent until it is asked something. */
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
  // The Engine does not look at what a success of UnmapPorts says.
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

/**
 * An Engine over HTTP: a Unix socket, a TCP port, or one with TLS. Uses the newest version of the API that both
 * sides know, and negotiates it again after each failure, since another Engine may run by then.
 */
import type { IncomingMessage } from "node:http"
import { Effect, Layer, Result, type Scope, Stream } from "effect"
import { type HttpAnswer, HttpCode, type HttpError, keepAliveClient, readTls } from "../node/HttpClient.ts"
import { jsonOf } from "../node/jsonOf.ts"
import { linesOf } from "../node/linesOf.ts"
import { Engine, EngineError, type EngineEvent, shortId } from "./Engine.ts"
import type { EngineAddress } from "./EngineAddress.ts"
import {
  decodeContainers,
  decodeEvent,
  decodeImage,
  decodeInfo,
  decodeNetworks,
  decodeRun,
  eventFilters
} from "./EngineMessages.ts"

export interface EngineHttpOptions {
  /** The timeout for an answer. Default 10,000. */
  readonly timeoutMillis?: number
}

/** Sends nothing before its first use. Fails if a TLS file can't be read. */
export const layer = (
  address: EngineAddress,
  options: EngineHttpOptions = {}
): Layer.Layer<Engine, EngineError> => Layer.effect(Engine, make(address, options))

/** The newest API whose answers this code is known to read, and the oldest. */
const newest = [1, 52] as const
const oldest = [1, 24] as const

const make = Effect.fnUntraced(function* (
  address: EngineAddress,
  { timeoutMillis = 10_000 }: EngineHttpOptions
) {
  const connection = yield* connect(address, timeoutMillis)
  const version = negotiation(connection)
  const { ask, fail, get, where } = connection

  const asked = <A>(
    path: string,
    decode: (value: unknown) => Result.Result<A, string>,
    takes?: Patience
  ): Effect.Effect<A | undefined, EngineError> =>
    Effect.gen(function* () {
      const { status, body } = yield* get(`${yield* version.prefix}${path}`, takes)
      if (status === 404) return undefined
      const value = jsonOf(body)
      if (status !== 200)
        return yield* fail("Refused", `GET ${path}: ${messageIn(value) ?? `status ${status}`}`)
      const decoded = decode(value)
      if (Result.isSuccess(decoded)) return decoded.success
      return yield* fail("NotAnEngine", `GET ${path}: not an Engine's answer: ${decoded.failure}`)
    }).pipe(Effect.tapError(() => version.forget))

  const always = <A>(path: string, decode: (value: unknown) => Result.Result<A, string>) =>
    Effect.flatMap(asked(path, decode), (found) =>
      found === undefined ? fail("NotAnEngine", `GET ${path}: no such path`) : Effect.succeed(found)
    )

  /** 304: it is so already. */
  const changed = (id: string, change: "start" | "stop"): Effect.Effect<void, EngineError> =>
    Effect.gen(function* () {
      const path = `/containers/${encodeURIComponent(id)}/${change}`
      const { status, body } = yield* ask("POST", `${yield* version.prefix}${path}`, "minutes")
      if (status === 204 || status === 304) return
      const why = messageIn(jsonOf(body)) ?? `status ${status}`
      return yield* fail("Refused", `POST /containers/${shortId(id)}/${change}: ${why}`)
    }).pipe(Effect.tapError(() => version.forget))

  const networks = always("/networks", decodeNetworks)

  return Engine.of({
    where,
    // Networks after containers: then none of the containers' networks is missing.
    containers: Effect.flatMap(always("/containers/json?all=1", decodeContainers), (containersIn) =>
      Effect.map(networks, containersIn)
    ),
    imageLabels: (image) => asked(`/images/${encodeURIComponent(image)}/json`, decodeImage),
    settled: (id) =>
      Effect.asVoid(asked(`/containers/${encodeURIComponent(id)}/json`, Result.succeed, "long")),
    runOf: (id) => asked(`/containers/${encodeURIComponent(id)}/json`, decodeRun, "long"),
    start: (id) => changed(id, "start"),
    stop: (id) => changed(id, "stop"),
    networks,
    info: always("/info", decodeInfo),
    events: Stream.tapError(eventsOver(connection, version.prefix), () => version.forget)
  })
})

/** `long`: as long as an answer may take. `minutes`: until a container has started or stopped. */
type Patience = "long" | "minutes"

/** A container may be given minutes to stop. */
const changeMillis = 120_000

interface Connection {
  readonly where: string
  readonly fail: (reason: EngineError["reason"], detail: string) => EngineError
  /** One request and its whole answer. Requests that may take long have a connection each, and block no other. */
  readonly ask: (
    method: "GET" | "POST",
    path: string,
    takes?: Patience
  ) => Effect.Effect<HttpAnswer, EngineError>
  readonly get: (path: string, takes?: Patience) => Effect.Effect<HttpAnswer, EngineError>
  /** A response to read as it arrives, on a connection of its own. `name` is the path as errors show it. */
  readonly open: (path: string, name: string) => Effect.Effect<IncomingMessage, EngineError, Scope.Scope>
}

const connect = Effect.fnUntraced(function* (
  { address, tls }: EngineAddress,
  timeoutMillis: number
): Effect.fn.Return<Connection, EngineError, Scope.Scope> {
  const where = address.text
  const fail: Connection["fail"] = (reason, detail) => new EngineError({ where, reason, detail })
  const files = yield* Effect.mapError(readTls(tls ?? {}), ({ detail }) =>
    fail("Denied", `a file for TLS can't be read: ${detail}`)
  )
  const http = yield* keepAliveClient(address, 4, {
    answerTimeoutMillis: timeoutMillis,
    tls: { ...files, rejectUnauthorized: tls?.verify ?? true }
  })
  const requestOf = (method: string, path: string, takes?: Patience) => ({
    method,
    path,
    headers: address._tag === "Pipe" ? { Host: "docker" } : {},
    alone: takes !== undefined,
    answerTimeoutMillis: takes === "minutes" ? changeMillis : timeoutMillis
  })
  const unanswered =
    (name: string, millis = timeoutMillis) =>
    (error: HttpError) =>
      error.code === HttpCode.answerTimeout
        ? fail("TimedOut", `no answer to ${name} within ${millis / 1000} s`)
        : fail(...reasonOf(error))
  const ask: Connection["ask"] = (method, path, takes) => {
    const request = requestOf(method, path, takes)
    return Effect.mapError(http.ask(request), unanswered(`${method} ${path}`, request.answerTimeoutMillis))
  }
  return {
    where,
    fail,
    ask,
    get: (path, takes) => ask("GET", path, takes),
    open: (path, name) =>
      Effect.mapError(http.open(requestOf("GET", path, "long")), unanswered(`GET ${name}`))
  }
})

/** `prefix` is the version part of the path: negotiated at first use, and again after `forget`. */
const negotiation = ({ fail, get }: Connection) => {
  let prefix: string | undefined
  /** An Engine that does not send it with every answer. */
  const announced = Effect.map(get("/version"), ({ body }) => {
    const value = jsonOf(body)
    return typeof value === "object" && value !== null && "ApiVersion" in value
      ? String(value.ApiVersion)
      : ""
  })
  const negotiate = Effect.gen(function* () {
    const ping = yield* get("/_ping")
    const found = Result.getOrUndefined(
      versionOf(ping.headers["api-version"]?.toString() ?? (yield* announced))
    )
    if (found === undefined) return yield* fail("NotAnEngine", "the server there is not a Docker Engine")
    if (compare(found, oldest) < 0)
      return yield* fail("Refused", `its API ${found.join(".")} is older than ${oldest.join(".")}`)
    prefix = `/v${(compare(found, newest) < 0 ? found : newest).join(".")}`
    return prefix
  })
  return {
    prefix: Effect.suspend(() => (prefix === undefined ? negotiate : Effect.succeed(prefix))),
    forget: Effect.sync(() => {
      prefix = undefined
    })
  }
}

const eventsOver = (
  { fail, open }: Connection,
  prefix: Effect.Effect<string, EngineError>
): Stream.Stream<EngineEvent, EngineError> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const filters = encodeURIComponent(JSON.stringify(eventFilters))
      const response = yield* open(`${yield* prefix}/events?filters=${filters}`, "/events")
      if (response.statusCode !== 200)
        return yield* fail("Refused", `GET /events: status ${response.statusCode}`)
      response.socket.setKeepAlive(true, 10_000)
      const ended = fail("Unreachable", "the stream of events ended")
      const decoded = Stream.fromAsyncIterable(linesOf(response, maxLine), () => ended).pipe(
        Stream.flatMap((line) => Stream.fromIterable(Result.getOrElse(decodeEvent(jsonOf(line)), () => []))),
        // An Engine drops events for clients that read slowly.
        Stream.buffer({ capacity: "unbounded" })
      )
      const connected: EngineEvent = { _tag: "Connected" }
      return Stream.concat(Stream.concat(Stream.succeed(connected), decoded), Stream.fail(ended))
    })
  )

/** No event is longer; anything longer does not come from an Engine. */
const maxLine = 16 * 1024 * 1024

const messageIn = (value: unknown): string | undefined =>
  typeof value === "object" && value !== null && "message" in value ? String(value.message) : undefined

type Version = readonly [major: number, minor: number]

const versionOf = (text: string): Result.Result<Version, string> => {
  const [, major, minor] = /^(\d+)\.(\d+)$/.exec(text) ?? []
  return major === undefined || minor === undefined
    ? Result.fail(text)
    : Result.succeed([Number(major), Number(minor)])
}

const compare = (a: Version, b: Version): number => a[0] - b[0] || a[1] - b[1]

const reasonOf = ({ code, message }: HttpError): [reason: EngineError["reason"], detail: string] => {
  switch (code) {
    case HttpCode.tooLong:
      return ["NotAnEngine", `the server there is not a Docker Engine: ${message}`]
    case "ENOENT":
      return ["Unreachable", "no such socket (is Docker installed, and running?)"]
    case "ECONNREFUSED":
      return ["Unreachable", "no process is listening there (is Docker running?)"]
    case "EACCES":
    case "EPERM":
      return ["Denied", "permission denied; run as root, or join the group docker"]
    case "ECONNRESET":
    case "EPIPE":
      return ["Unreachable", "the connection broke"]
    default:
      return ["Unreachable", message]
  }
}

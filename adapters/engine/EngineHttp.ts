/**
 * An Engine over HTTP: a Unix socket, a TCP port, or one with TLS. Speaks the newest version of the API that both sides know,
 * and finds it out again after each failure, since the Engine may be another one by then.
 */
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Https from "node:https"
import { Cause, Effect, Layer, Queue, Result, Stream } from "effect"
import { Engine, EngineError, type EngineEvent } from "./Engine.ts"
import type { EngineAddress } from "./EngineAddress.ts"
import {
  decodeContainers,
  decodeEvent,
  decodeImage,
  decodeInfo,
  decodeSubnets,
  eventFilters
} from "./EngineMessages.ts"

export interface EngineHttpOptions {
  /** How long an answer may take. Default 10,000. */
  readonly timeoutMillis?: number
}

/** Nothing is asked until it is used. Fails where a file of TLS can't be read. */
export const layer = (
  address: EngineAddress,
  options: EngineHttpOptions = {}
): Layer.Layer<Engine, EngineError> => Layer.effect(Engine, make(address, options))

/** The newest API whose answers are known to be read here, and the oldest. */
const newest = [1, 52] as const
const oldest = [1, 24] as const

const make = Effect.fnUntraced(function* (
  { address, tls }: EngineAddress,
  { timeoutMillis = 10_000 }: EngineHttpOptions
) {
  const where = address.text
  const fail = (reason: EngineError["reason"], detail: string) => new EngineError({ where, reason, detail })
  const secure = address._tag === "Net" && address.tls
  const files = yield* Effect.try({
    try: () =>
      tls === undefined
        ? {}
        : {
            ca: Fs.readFileSync(tls.ca),
            cert: Fs.readFileSync(tls.cert),
            key: Fs.readFileSync(tls.key),
            rejectUnauthorized: tls.verify
          },
    catch: (error) => fail("Denied", `a file for TLS can't be read: ${(error as Error).message}`)
  })
  const http = secure ? Https : Http
  const agent = yield* Effect.acquireRelease(
    Effect.sync(() => new http.Agent({ keepAlive: true, maxSockets: 4 })),
    (agent) => Effect.sync(() => agent.destroy())
  )
  const target: Https.RequestOptions =
    address._tag === "Pipe"
      ? { socketPath: address.path, headers: { Host: "docker" } }
      : { ...files, host: address.host, port: address.port }

  const opened = (path: string, more: Http.RequestOptions) =>
    http.request({ ...target, method: "GET", path, ...more })

  /** One request and its whole answer. Those that may take long have a connection each, and hold up no other. */
  const get = (path: string, takes: "short" | "long" = "short"): Effect.Effect<Answer, EngineError> =>
    Effect.callback<Answer, EngineError>((resume) => {
      const request = opened(path, { agent: takes === "short" && agent })
      const timer = setTimeout(() => {
        resume(Effect.fail(fail("TimedOut", `no answer to GET ${path} within ${timeoutMillis / 1000} s`)))
        request.destroy()
      }, timeoutMillis)
      request.once("error", (error) => resume(Effect.fail(fail(...reasonOf(error)))))
      request.once("response", (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.once("error", (error) => resume(Effect.fail(fail(...reasonOf(error)))))
        response.once("end", () =>
          resume(
            Effect.succeed({
              status: response.statusCode ?? 0,
              version: response.headers["api-version"]?.toString(),
              text: Buffer.concat(chunks).toString()
            })
          )
        )
      })
      request.once("close", () => clearTimeout(timer))
      request.end()
      return Effect.sync(() => request.destroy())
    })

  let prefix: string | undefined
  const negotiated = Effect.suspend(() =>
    prefix === undefined
      ? Effect.gen(function* () {
          const ping = yield* get("/_ping")
          const found = Result.getOrUndefined(versionOf(ping.version ?? (yield* announced)))
          if (found === undefined) return yield* fail("NotAnEngine", "what answers there is no Docker Engine")
          if (compare(found, oldest) < 0)
            return yield* fail("Refused", `its API ${found.join(".")} is older than ${oldest.join(".")}`)
          prefix = `/v${(compare(found, newest) < 0 ? found : newest).join(".")}`
          return prefix
        })
      : Effect.succeed(prefix)
  )
  /** An Engine that does not say it with every answer. */
  const announced = Effect.map(get("/version"), ({ text }) => {
    const value = json(text)
    return typeof value === "object" && value !== null && "ApiVersion" in value
      ? String(value.ApiVersion)
      : ""
  })
  const forgetVersion = Effect.sync(() => {
    prefix = undefined
  })

  const asked = <A>(
    path: string,
    decode: (value: unknown) => Result.Result<A, string>,
    takes?: "long"
  ): Effect.Effect<A | undefined, EngineError> =>
    Effect.gen(function* () {
      const { status, text } = yield* get(`${yield* negotiated}${path}`, takes)
      if (status === 404) return undefined
      const value = json(text)
      if (status !== 200)
        return yield* fail("Refused", `GET ${path}: ${messageIn(value) ?? `status ${status}`}`)
      const decoded = decode(value)
      if (Result.isSuccess(decoded)) return decoded.success
      return yield* fail(
        "NotAnEngine",
        `GET ${path} was answered by what is no Engine's answer: ${decoded.failure}`
      )
    }).pipe(Effect.tapError(() => forgetVersion))

  const always = <A>(path: string, decode: (value: unknown) => Result.Result<A, string>) =>
    Effect.flatMap(asked(path, decode), (found) =>
      found === undefined ? fail("NotAnEngine", `GET ${path}: no such path`) : Effect.succeed(found)
    )

  const events = Stream.callback<EngineEvent, EngineError>((queue) =>
    Effect.gen(function* () {
      const path = `${yield* negotiated}/events?filters=${encodeURIComponent(JSON.stringify(eventFilters))}`
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const end = (error: EngineError) => Queue.failCauseUnsafe(queue, Cause.fail(error))
          // A connection of its own: it lasts.
          const request = opened(path, { agent: false })
          const timer = setTimeout(() => {
            end(fail("TimedOut", `no answer to GET /events within ${timeoutMillis / 1000} s`))
            request.destroy()
          }, timeoutMillis)
          request.on("error", (error) => end(fail(...reasonOf(error))))
          request.once("close", () => clearTimeout(timer))
          request.once("response", (response) => {
            clearTimeout(timer)
            if (response.statusCode !== 200)
              return void end(fail("Refused", `GET /events: status ${response.statusCode}`))
            request.socket?.setKeepAlive(true, 10_000)
            Queue.offerUnsafe(queue, { _tag: "Connected" })
            let rest = ""
            response.setEncoding("utf8")
            response.on("data", (text: string) => {
              const lines = (rest + text).split("\n")
              rest = lines.pop() ?? ""
              for (const line of lines) {
                const decoded = decodeEvent(json(line))
                if (Result.isSuccess(decoded))
                  for (const event of decoded.success) Queue.offerUnsafe(queue, event)
              }
            })
            response.once("close", () => end(fail("Unreachable", "the stream of events ended")))
          })
          request.end()
          return request
        }),
        (request) => Effect.sync(() => request.destroy())
      )
      return yield* Effect.never
    })
  ).pipe(Stream.tapError(() => forgetVersion))

  return Engine.of({
    where,
    containers: always("/containers/json?all=1", decodeContainers),
    imageLabels: (image) => asked(`/images/${encodeURIComponent(image)}/json`, decodeImage),
    settled: (id) =>
      Effect.asVoid(asked(`/containers/${encodeURIComponent(id)}/json`, Result.succeed, "long")),
    subnets: always("/networks", decodeSubnets),
    info: always("/info", decodeInfo),
    events
  })
})

interface Answer {
  readonly status: number
  readonly version: string | undefined
  readonly text: string
}

const json = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

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

const reasonOf = (error: NodeJS.ErrnoException): [reason: EngineError["reason"], detail: string] => {
  switch (error.code) {
    case "ENOENT":
      return ["Unreachable", "no such socket (is Docker installed, and running?)"]
    case "ECONNREFUSED":
      return ["Unreachable", "nobody is listening there (is Docker running?)"]
    case "EACCES":
    case "EPERM":
      return ["Denied", "permission denied; run as root, or join the group docker"]
    case "ECONNRESET":
    case "EPIPE":
      return ["Unreachable", "the connection broke"]
    default:
      return ["Unreachable", error.message]
  }
}

/**
 * The HTTP client for plugins and Engines: over a Unix socket, a Windows pipe, TCP or TLS.
 *
 * On `node:http`, not on Effect's `HttpClient`, which reaches a Unix socket only through undici: loading undici adds
 * 0.1 s to the start of each command (on two cores; `node:http` takes 0.03 s), and undici adds headers of its own,
 * while the conformance kit has to send exactly what it checks.
 */
import * as Fs from "node:fs"
import * as Http from "node:http"
import type * as Https from "node:https"
import { Data, Effect, Schema, type Scope } from "effect"

export type HttpAddress =
  | { readonly _tag: "Pipe"; readonly path: string }
  | { readonly _tag: "Net"; readonly host: string; readonly port: number; readonly tls: boolean }

export interface HttpOptions {
  /** For an address with TLS; see `readTls`. */
  readonly tls?: Https.RequestOptions | undefined
  /** How long connecting may take. Default 5,000. */
  readonly connectTimeoutMillis?: number | undefined
  /** How long an answer may take, connecting and the body included. Default 15,000. */
  readonly answerTimeoutMillis?: number | undefined
  /** The most that is read of a body. Default 256 MiB: a list of every port of a host, each with long labels. */
  readonly maxBodyBytes?: number | undefined
  /** A connection was closed, by whichever side. */
  readonly onClosed?: (() => void) | undefined
}

export interface HttpRequest {
  readonly method: string
  readonly path: string
  /** An array of alternating names and values is sent unchanged: nothing is added, not even `Host`. */
  readonly headers?: Http.OutgoingHttpHeaders | ReadonlyArray<string>
  readonly body?: string
  /** Uses a separate connection, so that a slow answer delays no other request. */
  readonly alone?: boolean
  /** How long its answer may take, where that is more or less than for others. */
  readonly answerTimeoutMillis?: number | undefined
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: Http.IncomingHttpHeaders
  readonly body: string
}

/** No answer came. `connected`: the request may have been read. `code` is Node's, or one of `HttpCode`. */
export class HttpError extends Data.TaggedError("HttpError")<{
  readonly code: string
  readonly message: string
  readonly connected: boolean
}> {}

/** The codes of failures for which Node has none. */
export const HttpCode = {
  connectTimeout: "HTTP_CONNECT_TIMEOUT",
  answerTimeout: "HTTP_ANSWER_TIMEOUT",
  tooLong: "HTTP_TOO_LONG"
} as const

export interface HttpClient {
  /** Sends one request and reads its whole answer; interruption closes the connection. */
  readonly ask: (request: HttpRequest) => Effect.Effect<HttpAnswer, HttpError>
  /** The same, but the caller reads the body from the message, without a limit; the scope closes the connection. */
  readonly open: (request: HttpRequest) => Effect.Effect<Http.IncomingMessage, HttpError, Scope.Scope>
}

/** Each request has its own connection. */
export const httpClient = (address: HttpAddress, options: HttpOptions = {}): HttpClient =>
  clientWith(address, options, false)

/** Keeps and reuses at most this many connections, until the scope closes. */
export const keepAliveClient = (
  address: HttpAddress,
  connections: number,
  options: HttpOptions = {}
): Effect.Effect<HttpClient, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(
        () => new (protocolOf(address).Agent)({ keepAlive: true, maxSockets: connections }) as Http.Agent
      ),
      (agent) => Effect.sync(() => agent.destroy())
    ),
    (agent) => clientWith(address, options, agent)
  )

/** A TLS file can't be read, or has the wrong content. */
export class TlsFileError extends Schema.TaggedError<TlsFileError>()("TlsFileError", {
  file: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.file}: ${this.detail}`
  }
}

/** Paths of PEM files. `ca`: whom to trust instead of the system's authorities; `cert` and `key`: who we are. */
export interface TlsFiles {
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

export const readTls = Effect.fnUntraced(function* (files: TlsFiles) {
  const read: { -readonly [name in keyof TlsFiles]?: Buffer } = {}
  for (const name of ["ca", "cert", "key"] as const) {
    const file = files[name]
    if (file === undefined) continue
    read[name] = yield* Effect.try({
      try: () => Fs.readFileSync(file),
      catch: (error) => new TlsFileError({ file, detail: (error as Error).message })
    })
  }
  return read
})

/** `node:https` is loaded only if it is needed: a command on a Unix socket starts faster without it. */
const protocolOf = (address: HttpAddress): typeof Https | typeof Http =>
  address._tag === "Net" && address.tls ? process.getBuiltinModule("node:https") : Http

const clientWith = (address: HttpAddress, options: HttpOptions, agent: Http.Agent | false): HttpClient => {
  const { answerTimeoutMillis = 15_000, maxBodyBytes = 256 * 1024 * 1024 } = options
  const target: Https.RequestOptions =
    address._tag === "Pipe"
      ? { agent, socketPath: address.path }
      : { ...options.tls, agent, host: address.host, port: address.port }
  const inTime = <A, R>(request: HttpRequest, answer: Effect.Effect<A, HttpError, R>) => {
    const duration = request.answerTimeoutMillis ?? answerTimeoutMillis
    return Effect.timeoutOrElse(answer, {
      duration,
      orElse: () => {
        const message = `none came within ${duration / 1000} s`
        return Effect.fail(new HttpError({ code: HttpCode.answerTimeout, message, connected: true }))
      }
    })
  }
  const wire: Wire = {
    start: ({ method, path, headers = {}, alone = false }) =>
      protocolOf(address).request({ ...target, ...(alone ? { agent: false } : {}), method, path, headers }),
    connectedBy: address._tag === "Net" && address.tls ? "secureConnect" : "connect",
    connectTimeoutMillis: options.connectTimeoutMillis ?? 5_000,
    onClosed: options.onClosed ?? (() => {})
  }
  return {
    ask: (request) => inTime(request, send(wire, request, collect(maxBodyBytes))),
    open: (request) =>
      Effect.acquireRelease(
        inTime(
          request,
          send<Http.IncomingMessage>(wire, request, (response, done) => done(Effect.succeed(response)))
        ),
        (response) => Effect.sync(() => response.destroy()),
        { interruptible: true }
      )
  }
}

interface Wire {
  readonly start: (request: HttpRequest) => Http.ClientRequest
  readonly connectedBy: "connect" | "secureConnect"
  readonly connectTimeoutMillis: number
  readonly onClosed: () => void
}

type Done<A> = (outcome: Effect.Effect<A, HttpError>) => void

/**
 * Sends one request. If the server was just closing the reused connection, it never read the request, which is then
 * sent again, once, on another connection.
 */
const send = <A>(
  wire: Wire,
  request: HttpRequest,
  onResponse: (response: Http.IncomingMessage, done: Done<A>) => void,
  again = true
): Effect.Effect<A, HttpError> =>
  Effect.callback<A, HttpError>((resume) => {
    let connected = false
    let kept = false
    let timer: NodeJS.Timeout | undefined
    const fail = (code: string, message: string) =>
      resume(Effect.fail(new HttpError({ code, message, connected })))
    const sent = wire.start(request)
    // A request that waits for a free connection is not connecting yet.
    sent.once("socket", (socket) => {
      connected = kept = !socket.connecting
      if (kept) return
      socket.once("close", wire.onClosed)
      timer = setTimeout(() => {
        fail(HttpCode.connectTimeout, `no connection within ${wire.connectTimeoutMillis / 1000} s`)
        sent.destroy()
      }, wire.connectTimeoutMillis)
      socket.once(wire.connectedBy, () => {
        connected = true
        clearTimeout(timer)
      })
    })
    sent.once("response", (response) => {
      response.on("error", (error: NodeJS.ErrnoException) => fail(error.code ?? "", error.message))
      onResponse(response, resume)
    })
    sent.on("error", (error: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      const unread = kept && (error.code === "ECONNRESET" || error.code === "EPIPE")
      if (again && unread) resume(send(wire, request, onResponse, false))
      else fail(error.code ?? "", error.message)
    })
    sent.end(request.body)
    return Effect.sync(() => {
      clearTimeout(timer)
      sent.destroy()
    })
  })

const collect =
  (maxBytes: number) =>
  (response: Http.IncomingMessage, done: Done<HttpAnswer>): void => {
    const chunks: Array<Buffer> = []
    let length = 0
    response.on("data", (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      if (length <= maxBytes) return
      const message = `it is longer than ${maxBytes} bytes`
      done(Effect.fail(new HttpError({ code: HttpCode.tooLong, message, connected: true })))
      response.destroy()
    })
    response.once("end", () => {
      const { headers, statusCode: status = 0 } = response
      done(Effect.succeed({ status, headers, body: Buffer.concat(chunks).toString() }))
    })
  }

/**
 * The plugin protocol over HTTP: `POST /<Method>` with a JSON body, as the Docker Engine calls it. Owns what HTTP means to
 * a call (paths, status codes, limits, delivery); what a call does is `Operations`' and the driver's.
 *
 * Stands on `node:http` itself, with the Effect runtime behind it: an answer costs a tenth more than the bare server's.
 */
import * as Http from "node:http"
import type * as Net from "node:net"
import { Cause, type Context, Data, Effect, Exit, type Fiber, Option, type Scope } from "effect"
import { CurrentOwner, type Driver } from "../../src/protocol/Driver.ts"
import { type CallError, call, kindOf, Method, textBody } from "../../src/protocol/Operations.ts"

export const contentType = "application/vnd.docker.plugins.v1.1+json"

/** The Engine's own limit on what it sends is far below. */
export const maxBodyBytes = 1024 * 1024

/** How long a client may take to send its headers, and its whole request. */
const headersTimeoutMillis = 10_000
const requestTimeoutMillis = 30_000

/** How long a stop waits for the requests in flight; a call itself is bounded to less. */
const stopTimeoutMillis = 12_000

/** An answer that is not a call's: `GET /healthz` and the like. */
export interface Page {
  readonly contentType: string
  readonly body: string
}

export interface ServerOptions {
  /** Further `GET` paths. */
  readonly pages?: Readonly<Record<string, Effect.Effect<Page, unknown, Driver>>>
  /** The owner of calls that name none by the header `Portmapper-Owner`. */
  readonly owner?: string
}

/**
 * Serves the plugin on a listener until the scope closes. A call runs with the services of the fiber that serves, so
 * one layer serves any number of listeners. `listen` binds; it runs once the server is ready to answer.
 *
 * At the end nothing new is taken; idle connections are closed, requests in flight are finished, and one that was read
 * on a live connection meanwhile is answered 503.
 */
export const serve = <E, R>(
  listen: (server: Http.Server) => Effect.Effect<void, E, R | Scope.Scope>,
  options: ServerOptions = {}
): Effect.Effect<void, E, R | Driver | Scope.Scope> =>
  serveOn((listener) => Http.createServer(httpOptions, listener), listen, options)

/** As `serve`, for a server of another make, such as one of `node:https`. */
export const serveOn = <E, R>(
  create: (listener: Http.RequestListener) => Http.Server,
  listen: (server: Http.Server) => Effect.Effect<void, E, R | Scope.Scope>,
  options: ServerOptions
): Effect.Effect<void, E, R | Driver | Scope.Scope> =>
  Effect.gen(function* () {
    const services = yield* Effect.context<Driver>()
    const state: ServerState = { stopping: false, inFlight: 0, idle: undefined }
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const created = create(requestListener(services, options, state))
        created.on("clientError", refuseClient)
        return created
      }),
      (server) => stop(server, state)
    )
    yield* listen(server)
  })

/** No host header is required: an Engine sends it empty. */
export const httpOptions = {
  requireHostHeader: false,
  headersTimeout: headersTimeoutMillis,
  requestTimeout: requestTimeoutMillis,
  connectionsCheckingInterval: 2_000,
  /**
   * An idle connection closed in the moment that the Engine sends a request on it makes the Engine repeat the request
   * without its body, which fails a container's start. So its connections stay open as long as it wants.
   */
  keepAliveTimeout: 0,
  noDelay: true
} satisfies Http.ServerOptions

interface ServerState {
  stopping: boolean
  inFlight: number
  /** Called when the last request in flight is done. */
  idle: (() => void) | undefined
}

const requestListener = (
  services: Context.Context<Driver>,
  options: ServerOptions,
  state: ServerState
): Http.RequestListener => {
  const fork = Effect.runForkWith(services)
  return (request, response) => {
    state.inFlight++
    response.once("close", () => {
      state.inFlight--
      if (state.inFlight === 0) state.idle?.()
    })
    const route = state.stopping ? stopping : routeOf(request, options)
    if ("error" in route) {
      request.resume()
      if (state.stopping) response.setHeader("Connection", "close")
      return fail(response, route.status, route.error)
    }
    if (route.page !== undefined) return runPage(fork, route.page, response)
    const { method } = route
    readBody(request, response, (text) => {
      const owner = ownerOf(request, options)
      const answered = Effect.scoped(
        Effect.flatMap(call(method, textBody(text)), (answer) =>
          deliver(response, 200, `${JSON.stringify(answer)}\n`)
        )
      )
      const fiber = fork(Effect.provideService(answered, CurrentOwner, owner))
      settle(fiber, response)
    })
  }
}

type Route =
  | { readonly status: number; readonly error: string }
  | { readonly method: Method; readonly page: undefined }
  | { readonly page: Effect.Effect<Page, unknown, Driver> }

const stopping: Route = { status: 503, error: "the plugin is stopping; try again" }

const routeOf = (request: Http.IncomingMessage, { pages = {} }: ServerOptions): Route => {
  const path = request.url ?? ""
  const method = methodsByPath.get(path)
  if (method !== undefined)
    return request.method === "POST"
      ? { method, page: undefined }
      : { status: 405, error: `${request.method} ${path}: the method must be POST` }
  const page = Object.hasOwn(pages, path) ? pages[path] : undefined
  if (page === undefined)
    return { status: 404, error: `${path}: no such path; known are ${[...methodsByPath.keys()].join(", ")}` }
  return request.method === "GET" || request.method === "HEAD"
    ? { page }
    : { status: 405, error: `${request.method} ${path}: the method must be GET` }
}

const methodsByPath = new Map(Method.literals.map((method) => [`/${method}`, method]))

const ownerHeader = "portmapper-owner"

const ownerOf = ({ headers }: Http.IncomingMessage, { owner = "engine" }: ServerOptions): string => {
  const named = headers[ownerHeader]
  return typeof named === "string" && named !== "" ? named : owner
}

/** Invalid UTF-8 becomes U+FFFD, as in Go; a byte order mark stays and is refused with the rest of the text. */
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

const readBody = (
  request: Http.IncomingMessage,
  response: Http.ServerResponse,
  done: (text: string) => void
): void => {
  const tooLarge = () => {
    request.removeAllListeners("data").removeAllListeners("end").resume()
    response.setHeader("Connection", "close")
    fail(response, 413, `the body is over the limit of ${maxBodyBytes} bytes`)
  }
  if (Number(request.headers["content-length"] ?? 0) > maxBodyBytes) {
    tooLarge()
    return
  }
  const chunks: Array<Buffer> = []
  let length = 0
  request.on("data", (chunk: Buffer) => {
    length += chunk.length
    if (length > maxBodyBytes) tooLarge()
    else chunks.push(chunk)
  })
  request.once("end", () => {
    const [first] = chunks
    done(utf8.decode(chunks.length === 1 ? first : Buffer.concat(chunks)))
  })
}

/** The client is gone, and never read the answer. */
class Undelivered extends Data.TaggedError("Undelivered") {}

/** Succeeds once the system has taken the whole answer; fails when the client went before that. */
const deliver = (
  response: Http.ServerResponse,
  status: number,
  text: string
): Effect.Effect<void, Undelivered> =>
  Effect.callback((resume) => {
    if (response.destroyed) return resume(Effect.fail(new Undelivered()))
    response.once("finish", () => resume(Effect.void))
    response.once("close", () => resume(Effect.fail(new Undelivered())))
    response.writeHead(status, {
      "Content-Type": contentType,
      "Content-Length": Buffer.byteLength(text)
    })
    response.end(text)
  })

/** A call whose client goes is interrupted, and undoes itself; one that fails is answered with its reason. */
const settle = (fiber: Fiber.Fiber<void, CallError | Undelivered>, response: Http.ServerResponse): void => {
  response.once("close", () => {
    if (!response.writableFinished) fiber.interruptUnsafe()
  })
  fiber.addObserver((exit) => {
    if (Exit.isSuccess(exit) || response.headersSent || response.destroyed) return
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    if (error instanceof Undelivered) return
    if (error !== undefined) fail(response, statusOf(error), error.message)
    else fail(response, 500, `internal error: ${firstLine(exit.cause)}`)
  })
}

const statusOf = (error: CallError): number => ({ request: 400, notFound: 404, driver: 500 })[kindOf(error)]

const runPage = (
  fork: <A, E>(effect: Effect.Effect<A, E, Driver>) => Fiber.Fiber<A, E>,
  page: Effect.Effect<Page, unknown, Driver>,
  response: Http.ServerResponse
): void => {
  fork(page).addObserver((exit) => {
    if (Exit.isFailure(exit)) return fail(response, 500, firstLine(exit.cause))
    response.writeHead(200, {
      "Content-Type": exit.value.contentType,
      "Content-Length": Buffer.byteLength(exit.value.body)
    })
    response.end(exit.value.body)
  })
}

const firstLine = (cause: Cause.Cause<unknown>): string => Cause.pretty(cause).split("\n")[0] ?? ""

const fail = (response: Http.ServerResponse, status: number, message: string): void => {
  const text = `${JSON.stringify({ Err: message })}\n`
  response.writeHead(status, { "Content-Type": contentType, "Content-Length": Buffer.byteLength(text) })
  response.end(text)
}

/** What is no HTTP, or comes too slowly, is told so where that is possible. */
const refuseClient = (error: NodeJS.ErrnoException, socket: Net.Socket): void => {
  if (!socket.writable || error.code === "ECONNRESET") return void socket.destroy()
  const [status, reason] =
    error.code === "ERR_HTTP_REQUEST_TIMEOUT"
      ? (["408 Request Timeout", "the request took too long to arrive"] as const)
      : error.code === "HPE_HEADER_OVERFLOW"
        ? (["431 Request Header Fields Too Large", "the headers are too large"] as const)
        : (["400 Bad Request", "this is no HTTP request"] as const)
  const text = `${JSON.stringify({ Err: reason })}\n`
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: ${contentType}\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`
  )
}

const stop = (server: Http.Server, state: ServerState): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    state.stopping = true
    const closed = () => {
      server.closeAllConnections()
      resume(Effect.void)
    }
    server.close()
    server.closeIdleConnections()
    if (state.inFlight === 0) return closed()
    state.idle = closed
  }).pipe(
    Effect.timeoutOrElse({
      duration: stopTimeoutMillis,
      orElse: () => Effect.sync(() => server.closeAllConnections())
    })
  )

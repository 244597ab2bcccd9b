/**
 * The plugin protocol over HTTP: `POST /<Method>` with a JSON body, as the Docker Engine calls it. Owns the sockets:
 * limits of time, delivery, the stop. What HTTP means to a call is in `Routes`; what a call does is the driver's.
 *
 * Stands on `node:http`, with the Effect runtime behind it and a shorter way for plain requests (`WholeRequests`).
 */
import * as Http from "node:http"
import type * as Net from "node:net"
import { Server as TlsServer } from "node:tls"
import { Clock, Context, Effect, Exit, References, type Scope } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { controlReserve, descriptorLimit } from "../node/Descriptors.ts"
import { type ListenerHandoff, leaveConnection, type Place } from "../upgrade/ListenerHandoff.ts"
import { closeOthers, oneByOne } from "./Connections.ts"
import { type Exchange, start, startCall, Undelivered } from "./Exchange.ts"
import {
  contentType,
  decodeBody,
  errorText,
  type HandlerRoute,
  type Head,
  maxBodyBytes,
  ownerHeader,
  type PageRoute,
  pageFailed,
  type Refusal,
  type Reply,
  type RouteOptions,
  routeOf,
  stopping,
  tooLarge
} from "./Routes.ts"
import { type Interception, interceptWholeRequests, type ShortWay } from "./WholeRequests.ts"

export { contentType, maxBodyBytes }

export interface ServerOptions extends RouteOptions {
  /** Who keeps the listening socket and idle connections for a successor; nobody where `undefined`. */
  readonly handoff?: ListenerHandoff | undefined
}

/** As a listener serves: the place by which the handoff knows it. */
export interface PlacedOptions extends ServerOptions {
  readonly place?: Place | undefined
  /** Whether a connection may ask at all; any may where `undefined`. */
  readonly admits?: ((socket: Net.Socket) => boolean) | undefined
}

/** How long a client may take to send its headers, and its whole request. */
const headersTimeoutMillis = 10_000
const requestTimeoutMillis = 30_000

/** How long a client may take nothing of what it is sent, before it is dropped. */
const unreadTimeoutMillis = 30_000

/** How long a stop waits for the requests in flight; a call itself is bounded to less. */
const stopTimeoutMillis = 12_000
/** The same where a successor waits, and with it who connects meanwhile. */
const leaveTimeoutMillis = 3_000

/** Connections of one listener: a part of the descriptors that the relay leaves to calls. Node closes more at once. */
const maxConnections = (): number => Math.max(controlReserve(descriptorLimit()) >> 2, 8)

/**
 * Serves the plugin on a listener until the scope closes. A call runs with the services of the fiber that serves, so
 * one layer serves any number of listeners. `listen` binds; it runs once the server is ready to answer.
 *
 * At the end nothing new is taken; idle connections are closed, or left to the handoff's successor, requests in flight are
 * finished, and one that was read on a live connection meanwhile is answered 503.
 */
export const serve = <E, R>(
  listen: (server: Http.Server) => Effect.Effect<void, E, R | Scope.Scope>,
  options: PlacedOptions = {}
): Effect.Effect<void, E, R | Driver | Scope.Scope> =>
  serveOn((listener) => Http.createServer(httpOptions, listener), listen, options)

/** As `serve`, for a server of another make, such as one of `node:https`. */
export const serveOn = <E, R>(
  create: (listener: Http.RequestListener) => Http.Server,
  listen: (server: Http.Server) => Effect.Effect<void, E, R | Scope.Scope>,
  options: PlacedOptions
): Effect.Effect<void, E, R | Driver | Scope.Scope> =>
  Effect.gen(function* () {
    // A call takes no turn with others until it waits for something: it is short, or bounded.
    const services = Context.add(yield* Effect.context<Driver>(), References.PreventSchedulerYield, true)
    const clock = yield* Clock.Clock
    const state: ServerState = {
      stopping: false,
      leaving: false,
      inFlight: 0,
      idle: undefined,
      shortWay: undefined
    }
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const created = create(
          oneByOne(
            requestListener(services, options, state),
            () => void state.inFlight++,
            () => requestDone(state)
          )
        )
        created.on("clientError", refuseClient)
        created.maxConnections = maxConnections()
        // What TLS has to unwrap first has no short way.
        if (!(created instanceof TlsServer))
          state.shortWay = interceptWholeRequests(created, {
            take: takeWhole(services, options, state),
            silenceMillis: requestTimeoutMillis,
            unreadMillis: unreadTimeoutMillis,
            now: () => clock.currentTimeMillisUnsafe()
          })
        if (options.admits !== undefined) closeOthers(created, options.admits)
        return created
      }),
      (server) => stop(server, state, options)
    )
    yield* listen(server)
  })

/** No host header is required: an Engine sends it empty. */
export const httpOptions = {
  requireHostHeader: false,
  // Else the first of two Host headers would hide the other.
  joinDuplicateHeaders: true,
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
  /** Whether it stops for a successor's sake: what was read of connections that it gets is answered, not refused. */
  leaving: boolean
  inFlight: number
  /** Called when the last request in flight is done. */
  idle: (() => void) | undefined
  shortWay: ShortWay | undefined
}

const requestListener =
  (services: Context.Context<Driver>, options: ServerOptions, state: ServerState): Http.RequestListener =>
  (request, response) => {
    const route = state.stopping ? stopping : routeOf(headOf(request), options)
    switch (route._tag) {
      case "Refusal":
        request.resume()
        if (state.stopping) response.setHeader("Connection", "close")
        return refuse(response, route)
      case "Page":
        return runPage(services, route, response)
      case "Call":
        return readBody(request, response, (text) => {
          // A call is over once its delivery is known to the driver, which is after the response is gone.
          state.inFlight++
          startCall(services, route, text, exchangeOf(response), () => requestDone(state))
        })
      case "Handler":
        return readBody(request, response, (text) => {
          state.inFlight++
          const made = route.handler({ header: (name) => request.headers[name]?.toString(), body: text })
          runHandler(services, made, response, () => requestDone(state))
        })
    }
  }

/** What comes whole and asks for a call is answered at once; pages, refusals and the stop go the long way. */
const takeWhole =
  (services: Context.Context<Driver>, options: ServerOptions, state: ServerState): Interception["take"] =>
  ({ head, body }, exchange, done) => {
    if (state.stopping && !state.leaving) return false
    const route = routeOf(head, options)
    if (route._tag !== "Call") return false
    state.inFlight++
    startCall(services, route, body, exchange, () => {
      done()
      requestDone(state)
    })
    return true
  }

const requestDone = (state: ServerState): void => {
  state.inFlight--
  if (state.inFlight === 0) state.idle?.()
}

const headOf = ({ headers, method = "", url = "" }: Http.IncomingMessage): Head => ({
  verb: method,
  path: url,
  owner: headers[ownerHeader]?.toString(),
  origin: headers.origin,
  host: headers.host
})

const readBody = (
  request: Http.IncomingMessage,
  response: Http.ServerResponse,
  done: (text: string) => void
): void => {
  const giveUp = () => {
    request.removeAllListeners("data").removeAllListeners("end").resume()
    response.setHeader("Connection", "close")
    refuse(response, tooLarge)
  }
  if (Number(request.headers["content-length"] ?? 0) > maxBodyBytes) {
    giveUp()
    return
  }
  const chunks: Array<Buffer> = []
  let length = 0
  request.on("data", (chunk: Buffer) => {
    length += chunk.length
    if (length > maxBodyBytes) giveUp()
    else chunks.push(chunk)
  })
  request.once("end", () => done(decodeBody(chunks)))
}

const exchangeOf = (response: Http.ServerResponse): Exchange => ({
  deliver: (text) => deliver(response, { status: 200, contentType, body: text }),
  open: () => !response.headersSent && !response.destroyed,
  refuse: (refusal) => refuse(response, refusal),
  onGone: (gone) =>
    response.once("close", () => {
      if (!response.writableFinished) gone()
    })
})

const deliver = (response: Http.ServerResponse, reply: Reply): Effect.Effect<void, Undelivered> =>
  Effect.callback((resume) => {
    if (response.destroyed) return resume(Effect.fail(new Undelivered()))
    response.once("finish", () => resume(Effect.void))
    response.once("close", () => {
      if (!response.writableFinished) resume(Effect.fail(new Undelivered()))
    })
    send(response, reply)
  })

const runHandler = (
  services: Context.Context<Driver>,
  made: ReturnType<HandlerRoute["handler"]>,
  response: Http.ServerResponse,
  done: () => void
): void => {
  const answered = Effect.scoped(Effect.flatMap(made, (reply) => deliver(response, reply)))
  start(services, answered, exchangeOf(response), done)
}

const runPage = (
  services: Context.Context<Driver>,
  { page }: PageRoute,
  response: Http.ServerResponse
): void => {
  Effect.runForkWith(services)(page).addObserver((exit) => {
    if (Exit.isFailure(exit)) refuse(response, pageFailed(exit.cause))
    else send(response, { status: 200, ...exit.value })
  })
}

const refuse = (response: Http.ServerResponse, { status, reason }: Refusal): void =>
  send(response, { status, contentType, body: errorText(reason) })

const send = (response: Http.ServerResponse, { status, contentType, body }: Reply): void => {
  response.writeHead(status, { "Content-Type": contentType, "Content-Length": Buffer.byteLength(body) })
  response.end(body)
  const { socket } = response
  if (socket === null || socket.writableLength === 0) return
  socket.setTimeout(unreadTimeoutMillis)
  response.once("close", () => socket.setTimeout(0))
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
  const text = errorText(reason)
  socket.setTimeout(unreadTimeoutMillis)
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: ${contentType}\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`
  )
}

const stop = (
  server: Http.Server,
  state: ServerState,
  { handoff, place }: PlacedOptions
): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    state.stopping = true
    let end = (socket: Net.Socket): void => void socket.end()
    if (handoff !== undefined && place !== undefined && handoff.isLeaving()) {
      state.leaving = true
      end = (socket) => leaveConnection(socket, place, handoff)
    }
    const closed = () => {
      closeAll(server, state)
      resume(Effect.void)
    }
    server.close()
    server.closeIdleConnections()
    state.shortWay?.endIdle(end)
    if (state.inFlight === 0) return closed()
    state.idle = closed
  }).pipe(
    Effect.timeoutOrElse({
      duration: handoff?.isLeaving() === true ? leaveTimeoutMillis : stopTimeoutMillis,
      orElse: () => Effect.sync(() => closeAll(server, state))
    })
  )

const closeAll = (server: Http.Server, { shortWay }: ServerState): void => {
  server.closeAllConnections()
  shortWay?.closeAll()
}

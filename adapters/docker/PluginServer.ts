/**
 * The plugin protocol over HTTP: `POST /<Method>` with a JSON body, as the Docker Engine calls it. Owns the sockets:
 * timeouts, delivery, the stop. `Routes` maps HTTP to calls; the driver runs them.
 *
 * Built on `node:http`, with the Effect runtime behind it and a fast path for plain requests (`WholeRequests`).
 */
import * as Http from "node:http"
import type * as Net from "node:net"
import { Server as TlsServer } from "node:tls"
import { Clock, Context, Effect, Exit, References, type Scope } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { controlReserve, descriptorLimit } from "../node/Descriptors.ts"
import { type ListenerHandoff, leaveConnection, type Place } from "../upgrade/ListenerHandoff.ts"
import { type ConnectionSessions, connectionSessions } from "./ConnectionSessions.ts"
import { closeOthers, oneByOne } from "./Connections.ts"
import { type Responder, start, startCall, Undelivered } from "./Responder.ts"
import {
  type CallRoute,
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
  /** Keeps the listening socket and idle connections for a successor; they are closed if `undefined`. */
  readonly handoff?: ListenerHandoff | undefined
}

/** The options of one listener, with the place by which the handoff knows it. */
export interface PlacedOptions extends ServerOptions {
  readonly place?: Place | undefined
  /** Whether a connection is admitted; every one is if `undefined`. */
  readonly admits?: ((socket: Net.Socket) => boolean) | undefined
}

/** How long a client may take to send its headers, and its whole request. */
const headersTimeoutMillis = 10_000
const requestTimeoutMillis = 30_000

/** How long a client may read nothing of its answer before it is dropped. */
const unreadTimeoutMillis = 30_000

/** How long a stop waits for requests in flight; a call's own limit is shorter. */
const stopTimeoutMillis = 12_000
/** The same while a successor waits, and with it every client that connects meanwhile. */
const leaveTimeoutMillis = 3_000

/** The most connections of a listener: a share of the descriptors that the relay leaves. Node closes further ones. */
const maxConnections = (): number => Math.max(controlReserve(descriptorLimit()) >> 2, 8)

/**
 * Serves the plugin on a listener until the scope closes. A call runs with the services of the serving fiber, so one
 * layer serves any number of listeners. `listen` binds; it runs once the server is ready to answer.
 *
 * A stop accepts no connection and no request any more: idle connections are closed, or left to the handoff's
 * successor; requests in flight are finished; one read on a live connection meanwhile gets a 503.
 */
export const serve = <E, R>(
  listen: (server: Http.Server) => Effect.Effect<void, E, R | Scope.Scope>,
  options: PlacedOptions = {}
): Effect.Effect<void, E, R | Driver | Scope.Scope> =>
  serveOn((listener) => Http.createServer(httpOptions, listener), listen, options)

/** As `serve`, for another kind of server, such as one of `node:https`. */
export const serveOn = <E, R>(
  create: (listener: Http.RequestListener) => Http.Server,
  listen: (server: Http.Server) => Effect.Effect<void, E, R | Scope.Scope>,
  options: PlacedOptions
): Effect.Effect<void, E, R | Driver | Scope.Scope> =>
  Effect.gen(function* () {
    // A call doesn't yield to others until it waits for something: it is short, or bounded.
    const services = Context.add(yield* Effect.context<Driver>(), References.PreventSchedulerYield, true)
    const clock = yield* Clock.Clock
    const state = new ServerState(connectionSessions(services))
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
        // No fast path with TLS, which has to decrypt first.
        if (!(created instanceof TlsServer))
          state.shortWay = interceptWholeRequests(created, {
            take: takeWhole(services, options, state),
            silenceMillis: requestTimeoutMillis,
            unreadMillis: unreadTimeoutMillis,
            now: () => clock.currentTimeMillisUnsafe()
          })
        if (options.admits !== undefined) closeOthers(created, options.admits)
        created.prependListener("connection", (connection: Net.Socket, session?: string) => {
          if (session !== undefined) state.sessions.adopt(connection, session)
        })
        return created
      }),
      (server) => Effect.andThen(stop(server, state, options), state.sessions.end)
    )
    yield* listen(server)
  })

/** No host header is required: an Engine sends it empty. */
export const httpOptions = {
  requireHostHeader: false,
  // Otherwise the first of two Host headers would hide the other.
  joinDuplicateHeaders: true,
  headersTimeout: headersTimeoutMillis,
  requestTimeout: requestTimeoutMillis,
  connectionsCheckingInterval: 2_000,
  /**
   * If an idle connection is closed just as the Engine sends a request on it, the Engine repeats the request without
   * its body, which fails a container's start. So connections stay open as long as the client wants.
   */
  keepAliveTimeout: 0,
  noDelay: true
} satisfies Http.ServerOptions

class ServerState {
  stopping = false
  /**
   * Whether it stops for a successor: requests read on connections that the successor gets are answered, not refused.
   */
  leaving = false
  inFlight = 0
  /** Called when the last request in flight is done. */
  idle: (() => void) | undefined
  shortWay: ShortWay | undefined
  readonly sessions: ConnectionSessions

  constructor(sessions: ConnectionSessions) {
    this.sessions = sessions
  }
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
          beginCall(services, state, { route, text, responder: responderOf(response) })
        })
      case "Handler":
        return readBody(request, response, (text) => {
          state.inFlight++
          const made = route.handler({ header: (name) => request.headers[name]?.toString(), body: text })
          runHandler(services, made, response, () => requestDone(state))
        })
    }
  }

/**
 * Answers a complete request for a call at once; pages, refusals and requests during a stop go through `node:http`.
 */
const takeWhole =
  (services: Context.Context<Driver>, options: ServerOptions, state: ServerState): Interception["take"] =>
  ({ head, body }, responder, done) => {
    if (state.stopping && !state.leaving) return false
    const route = routeOf(head, options)
    if (route._tag !== "Call") return false
    beginCall(services, state, { route, text: body, responder, done })
    return true
  }

interface BegunCall {
  readonly route: CallRoute
  readonly text: string
  readonly responder: Responder
  readonly done?: () => void
}

const beginCall = (
  services: Context.Context<Driver>,
  state: ServerState,
  { route: { method, owner }, text, responder, done }: BegunCall
): void => {
  const named = { method, owner: state.sessions.ownerOf(owner, responder.connection) }
  state.inFlight++
  // A call ends once the driver knows of the delivery, which is after the response was sent.
  startCall(services, named, text, responder, () => {
    done?.()
    requestDone(state)
  })
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

const responderOf = (response: Http.ServerResponse): Responder => ({
  connection: response.req.socket,
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
  start(services, answered, responderOf(response), done)
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

/** Answers invalid HTTP and requests that come too slowly with an error, if the socket can still be written. */
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
      end = (socket) => leaveConnection(socket, place, handoff, state.sessions)
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

/** The page over HTTP: its file, its data, and the events that keep it up to date. Owns the server and its streams. */
import type * as Http from "node:http"
import { Effect, type Scope } from "effect"
import { closeOthers } from "../docker/Connections.ts"
import { listenUnix, type SocketFileError, type UnixListener } from "../docker/PluginSocket.ts"
import { type Listening, listenTcp, plain, type TcpError, type TcpListener } from "../docker/PluginTcp.ts"
import { errorText, type Refusal, refusal } from "../docker/Routes.ts"
import { type TcpAdmission, tcpAdmission } from "../docker/TcpAdmission.ts"
import { controlReserve, descriptorLimit } from "../node/Descriptors.ts"
import type { PageFeed, Reader } from "./PageFeed.ts"
import { bodyFor, type PageFile } from "./PageFile.ts"
import { type Hosts, pageAnswerOf } from "./PageRequests.ts"

export interface PageServerOptions {
  readonly feed: PageFeed
  readonly file: PageFile
  /** Names by which a reverse proxy is reached. */
  readonly hosts: ReadonlyArray<string>
  /** How long a client may read nothing of what is sent to it before it is dropped; 30 seconds. */
  readonly unreadTimeoutMillis?: number | undefined
}

/** How many pages may be open. */
export const maxPages = 100

/** The most connections: the pages', and those of requests besides. A share of the descriptors kept for control. */
const maxConnections = (): number => Math.min(2 * maxPages, controlReserve(descriptorLimit()) >> 1)

const idleTimeoutMillis = 60_000

/** Serves the page on a Unix socket, by the rules of the plugin's own. */
export const servePageUnix = (
  path: string,
  options: PageServerOptions & UnixListener
): Effect.Effect<void, SocketFileError, Scope.Scope> =>
  servePage(plain, (server) => listenUnix(server, path, options), options, {
    ...tcpAdmission("localhost", "localhost", undefined),
    admits: () => true
  })

/** Serves the page on a TCP port, by the rules of `serveTcp`. */
export const servePageTcp = (
  options: PageServerOptions & TcpListener
): Effect.Effect<Listening, TcpError, Scope.Scope> =>
  listenTcp(options, (create, listen, placed) => servePage(create, listen, options, placed))

const servePage = <E>(
  create: (requests: Http.RequestListener) => Http.Server,
  listen: (server: Http.Server) => Effect.Effect<void, E, Scope.Scope>,
  { feed, file, hosts, unreadTimeoutMillis = 30_000 }: PageServerOptions,
  { admits, isOwnHost }: TcpAdmission
): Effect.Effect<void, E, Scope.Scope> =>
  Effect.gen(function* () {
    const services = yield* Effect.context<never>()
    const streams = new Set<Http.ServerResponse>()
    const named = new Set(hosts.map((host) => host.toLowerCase()))
    const known: Hosts = { isOwn: isOwnHost, named }
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const serving = { feed, file, streams, known, runFork: Effect.runForkWith(services) }
        const made = create((request, response) => {
          // While anything is read, however slowly, the time begins anew.
          response.setTimeout(unreadTimeoutMillis, () => {
            if (response.writableLength > 0) response.destroy()
          })
          respond(serving, request, response)
        })
        made.keepAliveTimeout = idleTimeoutMillis
        made.maxConnections = maxConnections()
        closeOthers(made, admits)
        return made
      }),
      (made) => stop(made, streams)
    )
    yield* listen(server)
  })

/** Pages connect again by themselves: to the successor if there is one. */
const stop = (server: Http.Server, streams: ReadonlySet<Http.ServerResponse>): Effect.Effect<void> =>
  Effect.sync(() => {
    server.close()
    for (const stream of streams) stream.end()
    // What has been written is sent; nothing else is waited for.
    setImmediate(() => server.closeAllConnections())
  })

interface Serving {
  readonly feed: PageFeed
  readonly file: PageFile
  readonly streams: Set<Http.ServerResponse>
  readonly known: Hosts
  readonly runFork: ReturnType<typeof Effect.runForkWith<never>>
}

const respond = (serving: Serving, request: Http.IncomingMessage, response: Http.ServerResponse): void => {
  const { headers, method = "", url = "" } = request
  request.resume()
  const answer = pageAnswerOf(
    {
      verb: method,
      target: url,
      host: headers.host,
      origin: headers.origin,
      site: headers["sec-fetch-site"]?.toString()
    },
    serving.known
  )
  if (answer._tag === "Refusal") refuse(response, answer)
  else if (answer._tag === "File") sendFile(serving.file, request, response)
  else if (answer._tag === "Events") stream(serving, request, response)
  else
    serving.runFork(serving.feed.state).addObserver((exit) => {
      if (exit._tag === "Success") send(response, 200, { "Content-Type": json }, exit.value)
      else response.destroy()
    })
}

const json = "application/json; charset=utf-8"

/** On everything: for the page's own origin alone, and never run as anything else than it is. */
const guards = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff"
}

const send = (
  response: Http.ServerResponse,
  status: number,
  headers: Http.OutgoingHttpHeaders,
  body: string | Uint8Array
): void => {
  if (response.destroyed) return
  const length = status === 304 ? {} : { "Content-Length": Buffer.byteLength(body) }
  response.writeHead(status, { ...guards, ...length, ...headers })
  // Node leaves the body of a HEAD out.
  response.end(body)
}

const refuse = (response: Http.ServerResponse, { status, reason }: Refusal): void => {
  const more = status === 405 ? { Allow: "GET, HEAD" } : status === 503 ? { "Retry-After": "10" } : {}
  send(response, status, { "Content-Type": json, ...more }, errorText(reason))
}

const sendFile = (file: PageFile, { headers }: Http.IncomingMessage, response: Http.ServerResponse): void => {
  const [encoding, body] = bodyFor(file, headers["accept-encoding"]?.toString())
  const shared = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": file.policy,
    ETag: file.etag,
    Vary: "Accept-Encoding"
  }
  const encoded = encoding === "identity" ? {} : { "Content-Encoding": encoding }
  if (headers["if-none-match"] === file.etag) send(response, 304, shared, "")
  else send(response, 200, { ...shared, ...encoded, "Content-Type": "text/html; charset=utf-8" }, body)
}

const stream = (
  { feed, streams }: Serving,
  { headers, method }: Http.IncomingMessage,
  response: Http.ServerResponse
): void => {
  if (streams.size >= maxPages) {
    refuse(response, refusal(503, `${maxPages} pages are open, which is the most there may be`))
    return
  }
  // A proxy that buffered the stream would hold events back.
  response.writeHead(200, { ...guards, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no" })
  response.flushHeaders()
  if (method === "HEAD") return void response.end()
  streams.add(response)
  const unfollow = feed.follow(readerOf(response), headers["last-event-id"]?.toString())
  response.once("close", () => {
    streams.delete(response)
    unfollow()
  })
}

const readerOf = (response: Http.ServerResponse): Reader => ({
  isReady: () => !response.writableNeedDrain,
  write: (parts) => {
    response.cork()
    for (const part of parts) response.write(part)
    response.uncork()
  }
})

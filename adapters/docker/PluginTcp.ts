/**
 * The plugin on a TCP port. On a loopback address every user of the host may call it; beyond, only clients with a
 * certificate. Decides who may connect; `PluginServer` handles the requests.
 */
import * as Dns from "node:dns/promises"
import * as Http from "node:http"
import * as Https from "node:https"
import type * as Net from "node:net"
import { Effect, Result, Schema, type Scope } from "effect"
import { isLoopback, isUnspecified, parseAddress } from "../../src/protocol/Address.ts"
import type { Driver } from "../../src/protocol/Driver.ts"
import type { TlsFileError } from "../node/HttpClient.ts"
import { type ListenerHandoff, listenKept, type Place } from "../upgrade/ListenerHandoff.ts"
import { httpOptions, type ServerOptions, serveOn } from "./PluginServer.ts"
import { systemReason } from "./systemReason.ts"
import { type TcpAdmission, tcpAdmission } from "./TcpAdmission.ts"
import { type Renewals, readTlsFiles, type TlsFiles } from "./TlsFiles.ts"

export interface HostPort {
  /** A name or an address; IPv6 without brackets. */
  readonly host: string
  /** 0: the kernel picks one. */
  readonly port: number
}

/** TLS files, some of which may be missing; valid are all of them, or none. */
export type SomeTlsFiles = { readonly [K in keyof TlsFiles]?: TlsFiles[K] | undefined }

/** How to listen on a TCP port, whatever is served there. */
export interface TcpListener extends HostPort {
  readonly tls?: SomeTlsFiles | undefined
  /** When to reload the files; never if `undefined`. */
  readonly renewals?: Renewals | undefined
  readonly handoff?: ListenerHandoff | undefined
}

export interface TcpOptions extends TcpListener, ServerOptions {}

/** Serves on a server that `create` makes and `listen` binds, to those who are admitted. */
export type ServeTcp<R> = (
  create: (requests: Http.RequestListener) => Http.Server,
  listen: (server: Http.Server) => Effect.Effect<void, ListenError, Scope.Scope>,
  placed: TcpAdmission & { readonly place: Place }
) => Effect.Effect<void, ListenError, R | Scope.Scope>

/** Where a server listens: `host` as requested, `address` as resolved, and the actual port. */
export interface Listening extends HostPort {
  readonly address: string
  readonly secure: boolean
}

/** The handoff's key for a TCP socket. */
export const tcpPlace = (asked: HostPort): Place => `tcp ${hostPortText(asked)}`

/** The missing TLS files, by their names in `TlsFiles`. */
export class TlsFilesMissing extends Schema.TaggedError<TlsFilesMissing>()("TlsFilesMissing", {
  /** `HOST:PORT` */
  listener: Schema.String,
  beyondLoopback: Schema.Boolean,
  missing: Schema.NonEmptyArray(Schema.Literals(["certFile", "keyFile", "caFile"]))
}) {
  override get message(): string {
    return this.explain(this.missing)
  }

  /** The message with the caller's names for the missing files, in the order of `missing`. */
  explain(names: ReadonlyArray<string>): string {
    const why = this.beyondLoopback
      ? "it is reached from beyond this host, so clients must show certificates"
      : "TLS needs a certificate, its key and the clients' CA"
    return `${this.listener}: ${why}; missing: ${names.join(", ")}`
  }
}

export class ListenError extends Schema.TaggedError<ListenError>()("ListenError", {
  listener: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `listening on ${this.listener} failed: ${this.detail}`
  }
}

export type TcpError = TlsFilesMissing | TlsFileError | ListenError

/** A client that has not finished its TLS handshake by then is dropped. */
const handshakeTimeoutMillis = 10_000

/**
 * Serves the plugin on a TCP port until the scope closes. With TLS (1.2 or later) a client must show a certificate
 * signed by one of `caFile`; without TLS only a loopback address is served. A name is resolved once, and the server
 * listens on that address.
 */
export const serveTcp = (options: TcpOptions): Effect.Effect<Listening, TcpError, Driver | Scope.Scope> =>
  listenTcp(options, (create, listen, placed) => serveOn(create, listen, { ...options, ...placed }))

/** As `serveTcp`, for any server. */
export const listenTcp = Effect.fnUntraced(function* <R>(
  options: TcpListener,
  serve: ServeTcp<R>
): Effect.fn.Return<Listening, TcpError, R | Scope.Scope> {
  const listener = hostPortText(options)
  const address = yield* resolve(options, listener)
  const tls = yield* tlsFor(listener, address, options.tls)
  const certificates = tls === undefined ? undefined : yield* certificatesOf(tls)
  const connections = yield* openConnections
  const { handoff } = options
  const place = tcpPlace(options)
  const kept = handoff?.adopt(place)
  let port = kept?.port ?? options.port
  yield* serve(
    (requests) =>
      connections.of(certificates === undefined ? plain(requests) : certificates.secure(requests)),
    (server) => {
      const bind = Effect.map(listen(server, { host: address, port, backlog: 1024 }, listener), () => {
        port = portOf(server) ?? port
        return { port }
      })
      return handoff === undefined ? bind : listenKept(server, place, handoff, kept, bind)
    },
    { ...tcpAdmission(options.host, address, certificates?.own), place }
  )
  if (options.renewals !== undefined && certificates !== undefined)
    yield* options.renewals(certificates.renew(listener))
  return { host: options.host, address, port, secure: certificates !== undefined }
})

/** `HOST:PORT`, IPv6 in brackets; or what is expected instead. */
export const parseHostPort = (text: string): Result.Result<HostPort, string> => {
  const match = /^(?:\[([^[\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined)
    return Result.fail("expected HOST:PORT, such as 127.0.0.1:7000 or, for IPv6, [::1]:7000")
  if (port > 65535) return Result.fail("expected a port from 0 to 65535")
  const isAddress = Result.isSuccess(parseAddress(host))
  if (match?.[1] !== undefined && !(isAddress && host.includes(":")))
    return Result.fail("expected an IPv6 address in the brackets")
  // URLs as browsers and Node parse them have no zone, so a spec file can't contain one.
  if (host.includes("%")) return Result.fail("expected an address without a zone")
  if (!isAddress && (/^[\d.]+$/.test(host) || !/^[\w.-]+$/.test(host)))
    return Result.fail("expected the name of a host or an IP address before the port")
  return Result.succeed({ host, port })
}

export const hostPortText = ({ host, port }: HostPort): string =>
  `${host.includes(":") ? `[${host}]` : host}:${port}`

/**
 * The URL by which the Engine on this host reaches a listener: `tcp://` without TLS, `https://` with it. A host name
 * is kept, since the server's certificate is for names; an unspecified address becomes the loopback one.
 */
export const engineUrl = ({ host, port, secure }: Listening): string => {
  const address = Result.getOrUndefined(parseAddress(host))
  const reached =
    address !== undefined && isUnspecified(address) ? (address.family === 6 ? "::1" : "127.0.0.1") : host
  return `${secure ? "https" : "tcp"}://${hostPortText({ host: reached, port })}`
}

/** The files for a listener at an address: all three, or none on a loopback address. */
export const tlsFor = (
  listener: string,
  address: string,
  files: SomeTlsFiles = {}
): Effect.Effect<TlsFiles | undefined, TlsFilesMissing> => {
  const { certFile, keyFile, caFile } = files
  if (certFile !== undefined && keyFile !== undefined && caFile !== undefined)
    return Effect.succeed({ certFile, keyFile, caFile })
  const parsed = Result.getOrUndefined(parseAddress(address))
  const beyondLoopback = parsed === undefined || !isLoopback(parsed)
  const [first, ...rest] = (["certFile", "keyFile", "caFile"] as const).filter(
    (name) => files[name] === undefined
  )
  if (first === undefined || (rest.length === 2 && !beyondLoopback)) return Effect.succeed(undefined)
  return Effect.fail(new TlsFilesMissing({ listener, beyondLoopback, missing: [first, ...rest] }))
}

export const plain = (requests: Http.RequestListener): Http.Server => Http.createServer(httpOptions, requests)

/** The certificates that a TLS server presents and trusts, from its files. */
export interface Certificates {
  /** The server's own, as PEM. */
  readonly own: () => string
  readonly secure: (requests: Http.RequestListener) => Https.Server
  /** Reloads the files for future connections; if one is unusable, logs that and keeps the current ones. */
  readonly renew: (listener: string) => Effect.Effect<void>
}

export const certificatesOf = Effect.fnUntraced(function* (
  files: TlsFiles
): Effect.fn.Return<Certificates, TlsFileError> {
  let material = yield* readTlsFiles(files)
  let server: Https.Server | undefined
  const context = () => ({ ...material, minVersion: "TLSv1.2" as const })
  return {
    own: () => material.cert,
    secure: (requests) => {
      server = Https.createServer(
        {
          ...httpOptions,
          ...context(),
          requestCert: true,
          rejectUnauthorized: true,
          handshakeTimeout: handshakeTimeoutMillis
        },
        requests
      )
      // Without a handshake there is no HTTP answer to send; Node itself would keep such a connection open.
      return server.on("tlsClientError", (_, socket) => socket.destroy())
    },
    renew: (listener) =>
      Effect.matchEffect(readTlsFiles(files), {
        onFailure: ({ message }) => Effect.logError(`${listener} keeps its certificates: ${message}`),
        onSuccess: (renewed) =>
          Effect.suspend(() => {
            material = renewed
            server?.setSecureContext(context())
            return Effect.logInfo(`${listener} has its certificates renewed`)
          })
      })
  }
})

/** Waits until the server listens; fails with the system's reason. */
export const listen = (
  server: Net.Server,
  options: Net.ListenOptions,
  listener: string
): Effect.Effect<void, ListenError> =>
  Effect.callback((resume) => {
    const failed = (error: unknown) =>
      resume(Effect.fail(new ListenError({ listener, detail: systemReason(error) })))
    server.once("error", failed)
    server.listen(options, () => {
      server.off("error", failed)
      resume(Effect.void)
    })
  })

/**
 * The connections of a server, dropped with the scope: an HTTP server knows only those with a finished handshake, and
 * the others would keep the process alive until their handshake times out.
 */
export const openConnections = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => new Set<Net.Socket>()),
    (open) => Effect.sync(() => open.forEach((socket) => void socket.destroy()))
  ),
  (open) => ({
    of: (server: Http.Server): Http.Server =>
      server.on("connection", (socket: Net.Socket) => {
        open.add(socket)
        socket.once("close", () => open.delete(socket))
      })
  })
)

const portOf = (server: Net.Server): number | undefined => {
  const address = server.address()
  return typeof address === "object" ? address?.port : undefined
}

const resolve = ({ host }: HostPort, listener: string): Effect.Effect<string, ListenError> =>
  Result.isSuccess(parseAddress(host))
    ? Effect.succeed(host)
    : Effect.tryPromise({
        try: async () => (await Dns.lookup(host)).address,
        catch: () => new ListenError({ listener, detail: `no address is known for ${host}` })
      })

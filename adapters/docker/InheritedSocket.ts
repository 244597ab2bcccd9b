/** The plugin on an inherited socket, which another process bound: systemd, a supervisor, a test. */
import type * as Http from "node:http"
import type * as Net from "node:net"
import { Effect, type Scope } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { goOnWithConnections } from "../upgrade/ListenerHandoff.ts"
import { type PlacedOptions, serveOn } from "./PluginServer.ts"
import {
  type Certificates,
  certificatesOf,
  hostPortText,
  ListenError,
  type Listening,
  openConnections,
  plain,
  type SomeTlsFiles,
  type TcpError,
  type TlsFilesMissing,
  tlsFor
} from "./PluginTcp.ts"
import { systemReason } from "./systemReason.ts"
import { type TcpAdmission, tcpAdmission } from "./TcpAdmission.ts"
import type { Renewals } from "./TlsFiles.ts"

export interface InheritedOptions extends PlacedOptions {
  /** For a TCP socket, by the rules of `serveTcp`; ignored for a Unix socket. */
  readonly tls?: SomeTlsFiles | undefined
  /** When to reload the files; never if `undefined`. */
  readonly renewals?: Renewals | undefined
}

/**
 * Serves the plugin on a listening stream socket, Unix or TCP, until the scope closes. Then our descriptor is closed,
 * but the socket keeps listening for other processes that hold it, so new connections wait for the successor. Returns
 * the address of a TCP socket, and `undefined` for a Unix socket.
 */
export const serveFd = Effect.fnUntraced(function* (
  fd: number,
  options: InheritedOptions = {}
): Effect.fn.Return<Listening | undefined, TcpError, Driver | Scope.Scope> {
  const listener = `file descriptor ${fd}`
  const tls = yield* tlsFor(listener, "127.0.0.1", options.tls)
  const certificates = tls === undefined ? undefined : yield* certificatesOf(tls)
  const connections = yield* openConnections
  let adopted: Adopted | undefined
  let tcp: TcpAdmission | undefined
  const admission: TcpAdmission = {
    admits: (socket) => tcp?.admits(socket) ?? true,
    isOwnHost: (host) => tcp?.isOwnHost(host) ?? true
  }
  yield* serveOn(
    (requests) => {
      adopted = adopt(requests, fd, certificates)
      const { address } = adopted
      if (address !== undefined) tcp = tcpAdmission(address.address, address.address, certificates?.own)
      return connections.of(adopted.server)
    },
    () => ready(adopted, listener, options.tls),
    { ...options, ...admission }
  )
  const { handoff, place } = options
  if (adopted !== undefined && handoff !== undefined && place !== undefined)
    yield* goOnWithConnections(adopted.server, place, handoff)
  const address = adopted?.address
  if (address === undefined) return undefined
  if (options.renewals !== undefined && certificates !== undefined)
    yield* options.renewals(certificates.renew(hostPortText({ host: address.address, port: address.port })))
  return {
    host: address.address,
    address: address.address,
    port: address.port,
    secure: certificates !== undefined
  }
})

interface Adopted {
  readonly server: Http.Server
  /** The address of a TCP socket. */
  readonly address: Net.AddressInfo | undefined
  /** Resolves to the error message, or to `undefined` once the server listens. */
  readonly problem: Promise<string | undefined>
}

/**
 * Listens in a single step, since a connection may be waiting already. Node reveals the kind of socket only once it
 * listens; a TCP socket is then passed to a TLS server.
 */
const adopt = (
  requests: Http.RequestListener,
  fd: number,
  certificates: Certificates | undefined
): Adopted => {
  const server = plain(requests)
  const problem = problemOf(server)
  try {
    server.listen({ fd, backlog: 1024 })
  } catch (error) {
    return { server, address: undefined, problem: Promise.resolve(systemReason(error)) }
  }
  const found = server.address()
  const address = typeof found === "object" ? (found ?? undefined) : undefined
  if (address === undefined || certificates === undefined) return { server, address, problem }
  const secured = certificates.secure(requests)
  // The plain server serves nothing from here on and must not start its connection timers.
  server.removeAllListeners("listening")
  const securedProblem = problemOf(secured)
  secured.listen(server)
  return { server: secured, address, problem: securedProblem }
}

const problemOf = (server: Net.Server): Promise<string | undefined> =>
  new Promise((resolve) => {
    server.once("listening", () => resolve(undefined))
    server.once("error", (error) => resolve(systemReason(error)))
  })

const ready = Effect.fnUntraced(function* (
  adopted: Adopted | undefined,
  listener: string,
  tls: SomeTlsFiles | undefined
): Effect.fn.Return<void, ListenError | TlsFilesMissing> {
  const { address, problem } = adopted ?? { address: undefined, problem: Promise.resolve("no server") }
  if (address !== undefined) {
    const { address: host, port } = address
    yield* tlsFor(`${listener}, ${hostPortText({ host, port })}`, host, tls)
  }
  const detail = yield* Effect.promise(() => problem)
  if (detail !== undefined) return yield* new ListenError({ listener, detail })
})

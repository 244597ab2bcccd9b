/**
 * The open routes, by their frontends and by their sockets, and how each is described to a thread. Several may
 * share a socket that is bound to the unspecified address.
 */
import { Duration } from "effect"
import type { Admission, HostSocket } from "../../src/ports/HostSockets.ts"
import { type Address, isLoopback, isUnspecified, octetsOf } from "../../src/protocol/Address.ts"
import { isIdle } from "../../src/protocol/Slots.ts"
import { type Route, type RouteFrontend, routeKey } from "../../src/relay/Relay.ts"
import { socketAddress } from "../linux/sockets/SocketAddress.ts"
import { hasSources, makeLimitState } from "./LimitState.ts"
import type { Serving } from "./ThreadMessages.ts"

export interface RouteEntry {
  readonly route: Route
  readonly id: number
  readonly thread: number | undefined
  /** The interface of a link-local backend, else 0. */
  readonly scope: number
  /** Where its route has limits; shared with the other routes of its frontend. */
  readonly limitState: SharedArrayBuffer | undefined
  /** Another route of the same socket. */
  next: RouteEntry | undefined
}

export class RouteEntries {
  private readonly byFrontend = new Map<string, RouteEntry>()
  /** By descriptor. */
  private readonly firstOf: Array<RouteEntry | undefined> = []

  all(): IteratorObject<RouteEntry> {
    return this.byFrontend.values()
  }

  withId(id: number): RouteEntry | undefined {
    return this.all().find((entry) => entry.id === id)
  }

  of(frontend: RouteFrontend): RouteEntry | undefined {
    return this.byFrontend.get(routeKey(frontend))
  }

  /** The first entry of a socket. */
  first({ fd }: HostSocket): RouteEntry | undefined {
    return this.firstOf[fd]
  }

  /** Replaces the entry with its id, if there is one. */
  add(entry: RouteEntry): void {
    const { fd } = entry.route.socket
    this.byFrontend.set(routeKey(entry.route), entry)
    this.unlink(entry)
    entry.next = this.firstOf[fd]
    this.firstOf[fd] = entry
  }

  remove(entry: RouteEntry): void {
    if (this.of(entry.route) === entry) this.byFrontend.delete(routeKey(entry.route))
    this.unlink(entry)
  }

  private unlink({ route, id }: RouteEntry): void {
    const { fd } = route.socket
    const first = this.firstOf[fd]
    if (first?.id === id) this.firstOf[fd] = first.next
    for (let entry = first; entry?.next !== undefined; entry = entry.next)
      if (entry.next.id === id) entry.next = entry.next.next
  }
}

/** What the limits of its frontend have counted so far goes on. */
export const limitStateOf = (
  { host, limits }: Route,
  first: RouteEntry | undefined
): SharedArrayBuffer | undefined => {
  if (limits === undefined) return undefined
  const withSources = limits.ratePerSource !== undefined
  for (let entry = first; entry !== undefined; entry = entry.next) {
    const { limitState } = entry
    if (entry.route.host.key !== host.key || limitState === undefined) continue
    if (!withSources || hasSources(limitState)) return limitState
  }
  return makeLimitState(withSources)
}

export const servingOf = (
  { route, id, scope, limitState }: RouteEntry,
  udpIdle: Duration.Duration
): Serving => {
  const { protocol, host, socket, backend, allow, proxyProtocol, share, limits, admits, waitHealthy } = route
  const wildcard = isUnspecified(socket.host)
  return {
    id,
    fd: socket.fd,
    protocol: protocol === "udp" ? "udp" : "tcp",
    family: host.family,
    wildcard,
    local: wildcard && !isUnspecified(host) ? host.octets : undefined,
    backend: socketAddress(backend.address, backend.port, scope),
    allow: allow?.map(({ address, prefixLength }) => ({ octets: octetsOf(address), prefixLength })),
    proxyProtocol,
    udpIdleMillis: Duration.toMillis(route.udpIdle ?? udpIdle),
    share,
    isRedirected: admits === "loopback",
    isIdle: isIdle(route),
    waitMillis: waitHealthy === undefined ? 0 : Duration.toMillis(waitHealthy),
    limits: limits === undefined || limitState === undefined ? undefined : { ...limits, state: limitState }
  }
}

/**
 * The widest admission that a route of the socket needs. On a socket that is bound to the unspecified address,
 * packets for a loopback address come from this host, so a route for one admits no more than those: the kernel may
 * redirect the rest of the port.
 */
export const admissionOf = (socket: HostSocket, first: RouteEntry | undefined): Admission => {
  let admission: Admission = "nothing"
  for (let entry = first; entry !== undefined; entry = entry.next) {
    const { admits, host } = entry.route
    if (admits === "everything" && !(isUnspecified(socket.host) && isLoopback(host))) return "everything"
    admission = "loopback"
  }
  return admission
}

/** The backends whose own connections the kernel leaves to this socket; none to a loopback address. */
export const backendsOf = (first: RouteEntry | undefined): ReadonlyArray<Address> => {
  const backends = new Map<string, Address>()
  for (let entry = first; entry !== undefined; entry = entry.next) {
    const { host, backend } = entry.route
    if (!isLoopback(host)) backends.set(backend.address.key, backend.address)
  }
  return [...backends.values()]
}

/**
 * The routes that are open, by their frontends and by their sockets, and what a thread is told of one. Several may share a
 * socket that is bound to the unspecified address.
 */
import { Duration } from "effect"
import { type IpNetwork, NetAddress } from "effect/net"
import type { Admission, HostSocket } from "../../src/ports/HostSockets.ts"
import { isLoopback, isUnspecified } from "../../src/protocol/Address.ts"
import { frontendText } from "../../src/protocol/PortBinding.ts"
import type { Route, RouteFrontend } from "../../src/relay/Relay.ts"
import { socketAddress } from "../linux/sockets/SocketAddress.ts"
import type { Serving } from "./ThreadMessages.ts"

export interface RouteEntry {
  readonly route: Route
  readonly id: number
  readonly thread: number | undefined
  /** The interface of a link-local backend, else 0. */
  readonly scope: number
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

  of(frontend: RouteFrontend): RouteEntry | undefined {
    return this.byFrontend.get(routeKey(frontend))
  }

  /** The first of a socket's entries. */
  first({ fd }: HostSocket): RouteEntry | undefined {
    return this.firstOf[fd]
  }

  /** In the place of the entry with its id, if there is one. */
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

export const servingOf = ({ route, id, scope }: RouteEntry, udpIdle: Duration.Duration): Serving => {
  const { protocol, host, socket, backend, allow, proxyProtocol } = route
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
    udpIdleMillis: Duration.toMillis(route.udpIdle ?? udpIdle)
  }
}

/**
 * The most that a route of the socket wants. On a socket that is bound to the unspecified address, what is meant for a loopback
 * address comes from this host: more is not let in for its sake, since the rest of the port may be the kernel's to redirect.
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

/** Joined, since a template of this length would be kept as the tree of its parts, which takes three times the memory. */
const routeKey = ({ protocol, host, port }: RouteFrontend): string => [protocol, host.key, port].join(" ")

export const routeText = ({ protocol, host, port }: RouteFrontend): string =>
  frontendText(protocol, host, port)

const octetsOf = (address: IpNetwork.IpNetwork["address"]): Uint8Array =>
  Uint8Array.from(
    NetAddress.isIpv4Address(address) ? NetAddress.ipv4ToOctets(address) : NetAddress.ipv6ToOctets(address)
  )

/**
 * Userland forwarding on reserved sockets, for traffic that the kernel can't or should not redirect: from the
 * host's own loopback addresses, between IPv6 and IPv4, and all traffic in `proxy` mode.
 */
import { Context, type Duration, Effect, Layer, Queue, Schema } from "effect"
import type { IpNetwork } from "effect/net"
import { stepped } from "../memory/Steps.ts"
import type { Admission, HostSocket } from "../ports/HostSockets.ts"
import { type Address, isWithin } from "../protocol/Address.ts"
import { type Limits, limitsText, noneRefused, type Refused } from "../protocol/Limits.ts"
import { type Endpoint, endpointText, frontendText, type PublishedPort } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import { isIdle, type SlotShare, slotsText } from "../protocol/Slots.ts"

/**
 * Traffic that arrives on `socket` for `host:port` is relayed to `backend`. Several routes may share a socket bound
 * to the unspecified address: the route whose `host` is the destination address serves, otherwise that of the
 * unspecified address.
 */
export interface Route extends PublishedPort {
  readonly socket: HostSocket
  readonly backend: Endpoint
  /** Which packets reach the relay; the kernel drops the rest. */
  readonly admits: Exclude<Admission, "nothing">
  /** The sources to serve; `undefined` serves all. */
  readonly allow: ReadonlyArray<IpNetwork.IpNetwork> | undefined
  /**
   * The PROXY protocol header sent first on each TCP connection to the backend; UDP packets are relayed unchanged.
   */
  readonly proxyProtocol: "v1" | "v2" | undefined
  /**
   * A UDP flow is closed after this long without a packet in either direction; `undefined` uses the relay's own
   * setting.
   */
  readonly udpIdle: Duration.Duration | undefined
  /** Of the frontend: equal in all routes of a service. They hold for what begins from now on. */
  readonly limits?: Limits | undefined
  /** The backend's slots where the frontend is a service's, which has a route for each backend. */
  readonly share?: SlotShare | undefined
  /**
   * Its backend takes no new connections, like one of a service without slots. Where no route of the frontend leads
   * to one that does, clients are refused: TCP by a reset, UDP by an ICMP message where this process may send one.
   */
  readonly idle?: true | undefined
  /**
   * How long clients wait before they are refused; then a route that leads to a backend serves them, what they sent
   * included. Clients that wait end with the route.
   */
  readonly waitHealthy?: Duration.Duration | undefined
}

/** Identifies a route; `backend` and `share` where it is one of several of its frontend. */
export type RouteFrontend = Pick<Route, "protocol" | "host" | "port"> &
  Partial<Pick<Route, "backend" | "share">>

/** Routes with the same key replace each other. Not a template, which V8 would keep as a tree of its parts. */
export const routeKey = ({ protocol, host, port, backend, share }: RouteFrontend): string =>
  share === undefined || backend === undefined
    ? [protocol, host.key, port].join(" ")
    : [protocol, host.key, port, endpointText(backend)].join(" ")

/**
 * What a route has carried since it was opened; a route that replaced another continues its counts. A UDP flow
 * counts as a connection. `refused` counts what `allow` and the limits kept out: connections, and packets of UDP. Bytes
 * are payload, `bytesIn` from clients.
 */
export interface RelayCount extends RouteFrontend {
  readonly connections: number
  /** Of these, those that are open now. */
  readonly open: number
  readonly refused: Refused
  readonly bytesIn: number
  readonly bytesOut: number
}

export const relayedProtocols = ["tcp", "udp"] as const
export const isRelayed = (protocol: Protocol): protocol is (typeof relayedProtocols)[number] =>
  protocol !== "sctp"

export class RelayError extends Schema.TaggedError<RelayError>()("RelayError", {
  frontend: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `relay for ${this.frontend} failed: ${this.detail}`
  }
}

/** How many frontends where clients wait are kept until someone takes them. */
export const reportsKept = 1024

export class Relay extends Context.Service<
  Relay,
  {
    /** The protocols that the relay supports; empty where there is no relay. */
    readonly protocols: ReadonlyArray<Protocol>
    /**
     * Serves from now on what the route admits. A route for a frontend that has one replaces it: established
     * connections continue unchanged, new ones use the new route. Connections and UDP flows of sources that the new
     * `allow` leaves out are reset, and stay reset whatever route follows. After a failure or an interruption the
     * frontend is served as before, by its previous route or not at all, but the reset connections are lost.
     */
    readonly open: (route: Route) => Effect.Effect<void, RelayError>
    /**
     * Stops accepting connections, ends the established ones (after the relay's grace time, without waiting for
     * it), and admits nothing any more. Returns when the socket may be closed. Closing a route that is not open
     * does nothing.
     */
    readonly close: (frontend: RouteFrontend) => Effect.Effect<void>
    readonly counted: Effect.Effect<ReadonlyArray<RelayCount>>
    /** See `Driver.waits`. Reports that are not taken are dropped, the oldest first. */
    readonly waits: Effect.Effect<PublishedPort>
  }
>()("portmapper/relay/Relay") {
  /** No relay: the plan discards every entry that would need one. */
  static readonly layerNone = Layer.succeed(Relay, {
    protocols: [],
    open: (route) =>
      Effect.fail(new RelayError({ frontend: frontendText(route), detail: "there is no relay" })),
    close: () => Effect.void,
    counted: Effect.succeed([]),
    waits: Effect.never
  })

  static readonly layerMemory = Layer.unwrap(
    Effect.map(Effect.map(Queue.sliding<PublishedPort>(reportsKept), makeMemoryRelay), (relay) =>
      Layer.merge(Layer.succeed(Relay, relay.service), Layer.succeed(MemoryRelay, relay.control))
    )
  )
}

/** Replaces one route of a frontend by another, or by none. */
export const reroute = (
  relay: Relay["Service"],
  from: Route | undefined,
  to: Route | undefined
): Effect.Effect<void, RelayError> => {
  if (to !== undefined) return relay.open(to)
  return from === undefined ? Effect.void : relay.close(from)
}

export class MemoryRelay extends Context.Service<
  MemoryRelay,
  {
    /** Every route as `0.0.0.0:8080/tcp -> 172.17.0.2:80 admits loopback`, sorted. Limits are listed, not enforced. */
    readonly routes: () => ReadonlyArray<string>
    /** A client's connection, or its UDP flow, through a route. It is counted even if `allow` refuses it. One that has to wait only reports that: it is not served later. */
    readonly connect: (frontend: RouteFrontend, source: Address) => MemoryConnection
  }
>()("portmapper/relay/MemoryRelay") {}

/** A connection of a client of the in-memory relay. */
export interface MemoryConnection {
  /** False once it was refused, reset, or its route closed. */
  readonly isOpen: () => boolean
}

const allows = ({ allow }: Route, { octets }: Address): boolean =>
  allow === undefined || isWithin(allow, octets)

const shareText = ({ share }: Route): string =>
  share === undefined ? "" : ` slots ${slotsText(share.slots)} of ${share.size} by ${share.balance}`

/** What identifies the route. */
export const routeFrontend = ({ protocol, host, port, backend, share }: Route): RouteFrontend =>
  share === undefined ? { protocol, host, port } : { protocol, host, port, backend, share }

interface MemoryEntry {
  route: Route
  /** The sources of its open connections. */
  readonly open: Set<{ readonly source: Address }>
  connections: number
  refused: number
}

function makeMemoryRelay(waits: Queue.Queue<PublishedPort>) {
  const entries = new Map<string, MemoryEntry>()
  const put = (route: Route) => {
    const entry = entries.get(routeKey(route))
    if (entry === undefined)
      return void entries.set(routeKey(route), { route, open: new Set(), connections: 0, refused: 0 })
    entry.route = route
    for (const connection of entry.open) if (!allows(route, connection.source)) entry.open.delete(connection)
  }
  /** A route of a service that leads somewhere, if there is one. */
  const anyOf = ({ protocol, host, port }: RouteFrontend): MemoryEntry | undefined => {
    const found = [...entries.values()].filter(
      ({ route }) => route.protocol === protocol && route.host.key === host.key && route.port === port
    )
    return found.find(({ route }) => !isIdle(route)) ?? found[0]
  }
  const service = Relay.of({
    protocols: relayedProtocols,
    open: (route) => {
      const refused = (detail: string) => new RelayError({ frontend: frontendText(route), detail })
      if (!isRelayed(route.protocol))
        return Effect.fail(refused(`${route.protocol.toUpperCase()} is not relayed`))
      return stepped(
        "Relay.open",
        (failure) => refused(failure.message),
        () => Effect.sync(() => put(route))
      )
    },
    close: (frontend) =>
      Effect.sync(() => {
        entries.get(routeKey(frontend))?.open.clear()
        entries.delete(routeKey(frontend))
      }),
    counted: Effect.sync(() =>
      [...entries.values()].map(({ route, open, connections, refused }) => ({
        ...routeFrontend(route),
        connections,
        open: open.size,
        refused: { ...noneRefused, allow: refused },
        bytesIn: 0,
        bytesOut: 0
      }))
    ),
    waits: Queue.take(waits)
  })
  const control = MemoryRelay.of({
    routes: () =>
      [...entries.values()]
        .map(
          ({ route }) =>
            `${frontendText(route)} -> ${endpointText(route.backend)}${shareText(route)}${route.idle ? " idle" : ""} admits ${route.admits}${limitsText(route.limits)}`
        )
        .sort(),
    connect: (frontend, source) => {
      const entry = entries.get(routeKey(frontend)) ?? anyOf(frontend)
      const connection = { source }
      if (entry === undefined) return { isOpen: () => false }
      const { protocol, host, port, waitHealthy } = entry.route
      if (isIdle(entry.route)) {
        if (waitHealthy !== undefined) Queue.offerUnsafe(waits, { protocol, host, port })
        return { isOpen: () => false }
      }
      if (allows(entry.route, source)) {
        entry.connections++
        entry.open.add(connection)
      } else entry.refused++
      return { isOpen: () => entry.open.has(connection) }
    }
  })
  return { service, control }
}

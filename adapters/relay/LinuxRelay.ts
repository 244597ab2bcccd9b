/**
 * `Relay` on Linux: the reserved sockets are served in this process, by threads that wait in epoll_wait(2) and move bytes by
 * splice(2). Nothing is loaded or started before the first route.
 *
 * A folder of its own, since it is one thing of two halves: `LinuxRelay`, `RelayThreads`, `RelayThread` and what sees to the
 * reserved sockets for them (`SocketOptions`, `WatchedSockets`) run in the plugin's thread, `threadMain` and all it imports
 * in the relay's.
 */
import { availableParallelism } from "node:os"
import { Context, Duration, Effect, Layer, type Scope } from "effect"
import { type IpNetwork, NetAddress } from "effect/net"
import { type Admission, type HostSocket, HostSockets } from "../../src/ports/HostSockets.ts"
import { isLoopback, isUnspecified } from "../../src/protocol/Address.ts"
import { frontendText } from "../../src/protocol/PortBinding.ts"
import {
  isRelayed,
  Relay,
  RelayError,
  type Route,
  type RouteFrontend,
  relayedProtocols
} from "../../src/relay/Relay.ts"
import { libc } from "../linux/Libc.ts"
import { scopeOf, socketAddress } from "../linux/SocketAddress.ts"
import { type Assigned, makeRelayThreads, type Refused, type RelayThreads } from "./RelayThreads.ts"
import { setOptions } from "./SocketOptions.ts"
import type { Serving } from "./ThreadMessages.ts"

export interface RelayOptions {
  /** For routes that do not say; 90 seconds. */
  readonly udpIdle?: Duration.Duration | undefined
  /** How long a backend may take to accept a connection; 10 seconds. */
  readonly connectTimeout?: Duration.Duration | undefined
  /** How long connections of a closed route may go on; 5 seconds. */
  readonly grace?: Duration.Duration | undefined
  /** How long a UDP flow waits for its backend's answer once the relay takes nothing more; 2 seconds. */
  readonly answerTimeout?: Duration.Duration | undefined
  /** UDP flows of one route, the longest idle of which gives way to the next; 8192. */
  readonly maxFlows?: number | undefined
  /** Threads, where all are busy; 4, or as many as there are processors if that is less. */
  readonly maxThreads?: number | undefined
  /** Whether nothing is taken before `RelayHandover.resume`: another process still serves the same sockets. */
  readonly paused?: boolean | undefined
}

/** How the same sockets are served by one process after another, and never by two. */
export class RelayHandover extends Context.Service<
  RelayHandover,
  {
    /** Begins to take connections and packets, where the relay was made paused. What can't be served is logged. */
    readonly resume: Effect.Effect<void>
    /**
     * Takes nothing more, for good, and closes every socket of `HostSockets` without shutting it, since another process may
     * have it too. Returns at once, with an effect that waits for what goes on: connections for as long as they may, UDP
     * flows for as long as an answer may be on its way, their sockets until then.
     */
    readonly drain: (grace: Duration.Duration) => Effect.Effect<Effect.Effect<void>>
  }
>()("portmapper/relay/RelayHandover") {}

/** What the relay refused for want of descriptors, since it was made. */
export class RelayRefusals extends Context.Service<RelayRefusals, Effect.Effect<Refused>>()(
  "portmapper/relay/RelayRefusals"
) {}

type Services = Relay | RelayHandover | RelayRefusals

export const layer = (options: RelayOptions = {}): Layer.Layer<Services, never, HostSockets> =>
  Layer.effectContext(make(options))

interface Entry {
  readonly route: Route
  readonly id: number
  readonly thread: number | undefined
  /** The interface of a link-local backend, else 0. */
  readonly scope: number
  /** Another route of the same socket. */
  next: Entry | undefined
}

const make = Effect.fnUntraced(function* (
  options: RelayOptions
): Effect.fn.Return<Context.Context<Services>, never, HostSockets | Scope.Scope> {
  const sockets = yield* HostSockets
  const entries = new Map<string, Entry>()
  /** The first entry of each socket, by its descriptor. */
  const firstOf: Array<Entry | undefined> = []
  const udpIdle = options.udpIdle ?? Duration.seconds(90)

  const servingOf = ({ route, id, scope }: Entry): Serving => {
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
  const assigned = (entry: Entry): Assigned => ({ serving: servingOf(entry), thread: entry.thread })

  const threads: RelayThreads = yield* makeRelayThreads({
    settings: {
      connectMillis: Duration.toMillis(options.connectTimeout ?? Duration.seconds(10)),
      maxFlows: options.maxFlows ?? 8192,
      answerMillis: Duration.toMillis(options.answerTimeout ?? Duration.seconds(2))
    },
    maxThreads: options.maxThreads ?? Math.min(availableParallelism(), 4),
    graceMillis: Duration.toMillis(options.grace ?? Duration.seconds(5)),
    paused: options.paused ?? false,
    routes: () => entries.values().map(assigned),
    nameOf: (id) => {
      const entry = entries.values().find((one) => one.id === id)
      return entry === undefined ? undefined : routeText(entry.route)
    }
  })

  const add = (entry: Entry) => {
    entries.set(routeKey(entry.route), entry)
    link(entry)
  }

  /** In the place of the entry with its id, if there is one. */
  const link = (entry: Entry) => {
    const { socket } = entry.route
    unlink(entry)
    entry.next = firstOf[socket.fd]
    firstOf[socket.fd] = entry
  }

  const unlink = ({ route, id }: Entry) => {
    const { fd } = route.socket
    const first = firstOf[fd]
    if (first?.id === id) firstOf[fd] = first.next
    for (let entry = first; entry?.next !== undefined; entry = entry.next)
      if (entry.next.id === id) entry.next = entry.next.next
  }

  /** Lets in what the routes of this socket want, all of them together. */
  const admit = (socket: HostSocket) => sockets.admit(socket, admissionOf(socket, firstOf[socket.fd]))

  /** Whatever is removed is let in no more before the threads let go of it. */
  const close = (entry: Entry): Effect.Effect<void> => {
    const { socket } = entry.route
    const key = routeKey(entry.route)
    if (entries.get(key) === entry) entries.delete(key)
    unlink(entry)
    const shut = Effect.catch(admit(socket), (error) =>
      Effect.logError(`relay for ${routeText(entry.route)}: shutting its socket: ${error.message}`)
    )
    const isLast = firstOf[socket.fd] === undefined
    const { id, thread } = entry
    return Effect.andThen(shut, threads.stop({ id, thread, socket: isLast ? socket.fd : undefined }))
  }

  const newEntry = (route: Route, before: Entry | undefined): Entry | string => {
    const { protocol, backend } = route
    if (!isRelayed(protocol)) return `${protocol.toUpperCase()} is not relayed`
    const scope = scopeOf(libc(), backend.address)
    if (scope < 0) return `there is no interface ${backend.address.zone}`
    const place =
      before?.route.socket === route.socket
        ? { id: before.id, thread: before.thread }
        : threads.assign(protocol, firstOf[route.socket.fd]?.thread)
    if (place === undefined) return "there are too many routes"
    const options = firstOf[route.socket.fd] === undefined ? setOptions(libc(), route.socket) : 0
    if (options < 0) return `its socket can't be prepared: ${libc().errno("setsockopt", options).detail}`
    return { route, id: place.id, thread: place.thread, scope, next: undefined }
  }

  const open = (route: Route): Effect.Effect<void, RelayError> => {
    const before = entries.get(routeKey(route))
    const entry = newEntry(route, before)
    if (typeof entry === "string") return Effect.fail(failure(route, entry))
    add(entry)
    const onOtherSocket = before !== undefined && before.id !== entry.id
    const served = Effect.catch(serve(entry), (detail) =>
      Effect.andThen(
        serveAsBefore(entry, before, before === undefined || onOtherSocket),
        Effect.fail(failure(route, detail))
      )
    )
    return onOtherSocket
      ? Effect.andThen(
          served,
          Effect.suspend(() => close(before))
        )
      : served
  }

  const serve = (entry: Entry): Effect.Effect<void, string> =>
    Effect.andThen(
      threads.serve(assigned(entry)),
      Effect.mapError(admit(entry.route.socket), ({ detail }) => detail)
    )

  const serveAsBefore = Effect.fnUntraced(function* (
    entry: Entry,
    before: Entry | undefined,
    isNew: boolean
  ) {
    if (isNew) yield* close(entry)
    if (before === undefined) return
    add(before)
    yield* Effect.ignore(serve(before))
  })

  const relay = Relay.of({
    protocols: relayedProtocols,
    open: (route) => Effect.uninterruptible(Effect.suspend(() => open(route))),
    close: (frontend) =>
      Effect.uninterruptible(
        Effect.suspend(() => {
          const entry = entries.get(routeKey(frontend))
          return entry === undefined ? Effect.void : close(entry)
        })
      ),
    counted: Effect.sync(() =>
      Array.from(entries.values(), ({ id, route: { protocol, host, port } }) => ({
        protocol,
        host,
        port,
        ...threads.counters(id)
      }))
    )
  })

  const handover = RelayHandover.of({
    resume: Effect.catch(threads.resume, (detail) =>
      Effect.logError(`not all that was taken over is relayed: ${detail}`)
    ),
    drain: Effect.fnUntraced(function* (grace) {
      yield* threads.drain(Duration.toMillis(grace))
      const flowing = [...entries.values()].filter(
        ({ route, id }) => route.protocol === "udp" && threads.isEnding(id)
      )
      const needed = new Set(flowing.map(({ route }) => route.socket))
      for (const socket of yield* sockets.held) if (!needed.has(socket)) yield* sockets.close(socket)
      const flowsEnd = Effect.andThen(
        threads.ended(flowing.map(({ id }) => id)),
        Effect.forEach(needed, sockets.close, { discard: true })
      )
      return Effect.andThen(flowsEnd, threads.allEnded)
    })
  })

  return Context.make(Relay, relay).pipe(
    Context.add(RelayHandover, handover),
    Context.add(RelayRefusals, Effect.sync(threads.refused))
  )
})

/**
 * The most that a route of the socket wants. On a socket that is bound to the unspecified address, what is meant for a loopback
 * address comes from this host: more is not let in for its sake, since the rest of the port may be the kernel's to redirect.
 */
const admissionOf = (socket: HostSocket, first: Entry | undefined): Admission => {
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

const routeText = ({ protocol, host, port }: RouteFrontend): string => frontendText(protocol, host, port)

const failure = (route: Route, detail: string) => new RelayError({ frontend: routeText(route), detail })

const octetsOf = (address: IpNetwork.IpNetwork["address"]): Uint8Array =>
  Uint8Array.from(
    NetAddress.isIpv4Address(address) ? NetAddress.ipv4ToOctets(address) : NetAddress.ipv6ToOctets(address)
  )

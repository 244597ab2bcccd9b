/**
 * `Relay` on Linux: threads of this process serve the reserved sockets; they wait in epoll_wait(2) and move bytes
 * by splice(2). Nothing is loaded or started before the first route.
 *
 * This file and its neighbours run in the plugin's thread; the code of the relay's threads is in `thread/`, see its
 * README.
 */
import { availableParallelism } from "node:os"
import { Context, Duration, Effect, Layer, Queue, type Scope } from "effect"
import { type HostSocket, HostSockets } from "../../src/ports/HostSockets.ts"
import { frontendText, type PublishedPort } from "../../src/protocol/PortBinding.ts"
import {
  isRelayed,
  Relay,
  RelayError,
  type Route,
  relayedProtocols,
  reportsKept,
  routeFrontend
} from "../../src/relay/Relay.ts"
import { libc } from "../linux/Libc.ts"
import { scopeOf } from "../linux/sockets/SocketAddress.ts"
import { maxLimitingThreads } from "./LimitState.ts"
import {
  admissionOf,
  backendsOf,
  limitStateOf,
  RouteEntries,
  type RouteEntry,
  servingOf
} from "./RouteEntries.ts"
import { setOptions } from "./SocketOptions.ts"
import { type Assigned, makeThreadPool, type Refused, type ThreadPool } from "./ThreadPool.ts"

export interface RelayOptions {
  /** For routes without an idle time of their own; 90 seconds. */
  readonly udpIdle?: Duration.Duration | undefined
  /** How long a backend may take to accept a connection; 10 seconds. */
  readonly connectTimeout?: Duration.Duration | undefined
  /** How long connections of a closed route may continue; 5 seconds. */
  readonly grace?: Duration.Duration | undefined
  /** How long a UDP flow waits for its backend's answer once the relay has stopped accepting; 2 seconds. */
  readonly answerTimeout?: Duration.Duration | undefined
  /** Maximum UDP flows of one route; a further flow evicts the one that has been idle longest; 8192. */
  readonly maxFlows?: number | undefined
  /** Maximum number of threads, reached when all are busy; 4, or the number of processors if that is less. */
  readonly maxThreads?: number | undefined
  /**
   * Whether the relay accepts nothing before `RelayHandover.resume`, because another process still serves the same
   * sockets.
   */
  readonly paused?: boolean | undefined
}

/** Hands the same sockets from one process to the next, so that two never serve them at once. */
export class RelayHandover extends Context.Service<
  RelayHandover,
  {
    /** Starts to accept connections and packets, if the relay was made paused. Logs what it can't serve. */
    readonly resume: Effect.Effect<void>
    /**
     * Stops accepting for good, and closes every socket of `HostSockets` without shutting it down, since another
     * process may have it too. Returns at once, with an effect that waits until the rest has ended: connections
     * within their grace time, UDP flows for as long as an answer may be on its way; their sockets stay open until
     * then.
     */
    readonly drain: (grace: Duration.Duration) => Effect.Effect<Effect.Effect<void>>
  }
>()("portmapper/relay/RelayHandover") {}

/** What the relay uses, and what it refused for lack of descriptors since it started. */
export class RelayUse extends Context.Service<
  RelayUse,
  Effect.Effect<{ readonly refused: Refused; readonly threads: number; readonly maxThreads: number }>
>()("portmapper/relay/RelayUse") {}

export type Services = Relay | RelayHandover | RelayUse

export const layer = (options: RelayOptions = {}): Layer.Layer<Services, never, HostSockets> =>
  Layer.effectContext(make(options))

/** State that the parts of a relay share. */
interface Parts {
  readonly sockets: HostSockets["Service"]
  readonly entries: RouteEntries
  readonly threads: ThreadPool
  readonly assigned: (entry: RouteEntry) => Assigned
  readonly waits: Queue.Queue<PublishedPort>
}

const make = Effect.fnUntraced(function* (
  options: RelayOptions
): Effect.fn.Return<Context.Context<Services>, never, HostSockets | Scope.Scope> {
  const sockets = yield* HostSockets
  const entries = new RouteEntries()
  const waits = yield* Queue.sliding<PublishedPort>(reportsKept)
  const udpIdle = options.udpIdle ?? Duration.seconds(90)
  const maxThreads = Math.min(options.maxThreads ?? Math.min(availableParallelism(), 4), maxLimitingThreads)
  const assigned = (entry: RouteEntry) => ({ serving: servingOf(entry, udpIdle), thread: entry.thread })
  const threads = yield* makeThreadPool({
    settings: {
      connectMillis: Duration.toMillis(options.connectTimeout ?? Duration.seconds(10)),
      maxFlows: options.maxFlows ?? 8192,
      answerMillis: Duration.toMillis(options.answerTimeout ?? Duration.seconds(2))
    },
    maxThreads,
    graceMillis: Duration.toMillis(options.grace ?? Duration.seconds(5)),
    paused: options.paused ?? false,
    routes: () => entries.all().map(assigned),
    onWaits: (id) => {
      const route = entries.withId(id)?.route
      if (route !== undefined) Queue.offerUnsafe(waits, route)
    },
    nameOf: (id) => {
      const entry = entries.withId(id)
      return entry === undefined ? undefined : frontendText(entry.route)
    }
  })
  const parts = { sockets, entries, threads, assigned, waits }
  return Context.make(Relay, relayOf(parts)).pipe(
    Context.add(RelayHandover, handoverOf(parts)),
    Context.add(
      RelayUse,
      Effect.sync(() => ({ refused: threads.refused(), threads: threads.size(), maxThreads }))
    )
  )
})

const relayOf = (parts: Parts): Relay["Service"] => {
  const { entries, threads, waits } = parts
  return Relay.of({
    protocols: relayedProtocols,
    open: (route) => Effect.uninterruptible(Effect.suspend(() => open(parts, route))),
    close: (frontend) =>
      Effect.uninterruptible(
        Effect.suspend(() => {
          const entry = entries.of(frontend)
          return entry === undefined ? Effect.void : close(parts, entry)
        })
      ),
    counted: Effect.sync(() =>
      Array.from(entries.all(), ({ id, route }) => ({ ...routeFrontend(route), ...threads.countersOf(id) }))
    ),
    waits: Queue.take(waits)
  })
}

const open = (parts: Parts, route: Route): Effect.Effect<void, RelayError> => {
  const { entries } = parts
  const before = entries.of(route)
  const entry = newEntry(parts, route, before)
  if (typeof entry === "string") return Effect.fail(failure(route, entry))
  entries.add(entry)
  const onOtherSocket = before !== undefined && before.id !== entry.id
  const served = Effect.catch(serve(parts, entry), (detail) =>
    Effect.andThen(
      serveAsBefore(parts, entry, before, before === undefined || onOtherSocket),
      Effect.fail(failure(route, detail))
    )
  )
  return onOtherSocket
    ? Effect.andThen(
        served,
        Effect.suspend(() => close(parts, before))
      )
    : served
}

const newEntry = (
  { entries, threads }: Parts,
  route: Route,
  before: RouteEntry | undefined
): RouteEntry | string => {
  const { protocol, backend, socket } = route
  if (!isRelayed(protocol)) return `${protocol.toUpperCase()} is not relayed`
  const scope = scopeOf(libc(), backend.address)
  if (scope < 0) return `there is no interface ${backend.address.zone}`
  const first = entries.first(socket)
  const place =
    before?.route.socket === socket
      ? { id: before.id, thread: before.thread }
      : threads.assign(protocol, first?.thread)
  if (place === undefined) return "there are too many routes"
  const options = first === undefined ? setOptions(libc(), socket) : 0
  if (options < 0) return `its socket can't be prepared: ${libc().errno("setsockopt", options).detail}`
  const limitState = limitStateOf(route, first)
  return { route, id: place.id, thread: place.thread, scope, limitState, next: undefined }
}

const serve = (parts: Parts, entry: RouteEntry): Effect.Effect<void, string> =>
  Effect.andThen(
    parts.threads.serve(parts.assigned(entry)),
    Effect.mapError(admit(parts, entry.route.socket), ({ detail }) => detail)
  )

const serveAsBefore = Effect.fnUntraced(function* (
  parts: Parts,
  entry: RouteEntry,
  before: RouteEntry | undefined,
  isNew: boolean
) {
  if (isNew) yield* close(parts, entry)
  if (before === undefined) return
  parts.entries.add(before)
  yield* Effect.ignore(serve(parts, before))
})

/** Admits the packets that any route of this socket needs. */
const admit = ({ sockets, entries }: Parts, socket: HostSocket) => {
  const first = entries.first(socket)
  return sockets.admit(socket, admissionOf(socket, first), backendsOf(first))
}

/** Stops admitting packets for a removed route before the threads release it. */
const close = (parts: Parts, entry: RouteEntry): Effect.Effect<void> => {
  const { entries, threads } = parts
  const { socket } = entry.route
  entries.remove(entry)
  const shut = Effect.catch(admit(parts, socket), (error) =>
    Effect.logError(`relay for ${frontendText(entry.route)}: shutting its socket: ${error.message}`)
  )
  const isLast = entries.first(socket) === undefined
  const { id, thread } = entry
  return Effect.andThen(shut, threads.stop({ id, thread, socket: isLast ? socket.fd : undefined }))
}

const handoverOf = ({ sockets, entries, threads }: Parts): RelayHandover["Service"] =>
  RelayHandover.of({
    resume: Effect.catch(threads.resume, (detail) =>
      Effect.logError(`not all routes that were taken over are relayed: ${detail}`)
    ),
    drain: Effect.fnUntraced(function* (grace) {
      yield* threads.drain(Duration.toMillis(grace))
      const flowing = [...entries.all()].filter(
        ({ route, id }) => route.protocol === "udp" && threads.isEnding(id)
      )
      const needed = new Set(flowing.map(({ route }) => route.socket))
      for (const socket of yield* sockets.held) if (!needed.has(socket)) yield* sockets.close(socket)
      const flowsEnd = Effect.andThen(
        threads.whenEnded(flowing.map(({ id }) => id)),
        Effect.forEach(needed, sockets.close, { discard: true })
      )
      return Effect.andThen(flowsEnd, threads.whenEnded())
    })
  })

const failure = (route: Route, detail: string) => new RelayError({ frontend: frontendText(route), detail })

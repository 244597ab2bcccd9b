/**
 * Serving, from a start or a takeover to a stop or the next takeover. The host's sockets and the relay live as long as the
 * process; everything else, the locks included, for a tenure: it ends when a successor asks, and another one begins where
 * the successor fails, with the sockets that were there all the time.
 */
import * as Path from "node:path"
import { Console, Context, Duration, Effect, Exit, Layer, Option, Result, Scope } from "effect"
import type { Guard } from "../../src/firewall/Firewall.ts"
import { OwnPorts } from "../../src/firewall/OwnPorts.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { isLoopback } from "../../src/protocol/Address.ts"
import { CallObserver } from "../../src/protocol/CallObserver.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Relay } from "../../src/relay/Relay.ts"
import { executeHandler, executePath } from "../cni/Served.ts"
import { type Metrics, makeMetrics } from "../docker/Metrics.ts"
import { announce, type Notify, type PassedSocket, takeNotify, takePassedSockets } from "../docker/Systemd.ts"
import type { Renewals } from "../docker/TlsFiles.ts"
import type { EngineAddress } from "../engine/EngineAddress.ts"
import { type Keeping, makeKeeping } from "../handover/Keeping.ts"
import { awaitSuccessor, offerHandover, type Succession } from "../handover/Predecessor.ts"
import { type Inheritance, refuseAmidHandover, takeOver } from "../handover/Successor.ts"
import { type MapperOptions, mapperOn, relayLayer } from "../host/HostLayer.ts"
import type { DescriptorSocket } from "../linux/DescriptorSocket.ts"
import { type Errno, libc } from "../linux/Libc.ts"
import { boundTo } from "../linux/SocketAddress.ts"
import { sendUnixDatagram } from "../linux/UnixDatagram.ts"
import { descriptorLimit, descriptorsInUse } from "../node/Descriptors.ts"
import { RelayHandover, RelayRefusals } from "../relay/LinuxRelay.ts"
import { failed } from "./failure.ts"
import { keepPassed, type ListenerOptions, serveListeners } from "./listeners.ts"
import { handoverSocket } from "./options.ts"
import { releaseAtEnd } from "./release.ts"
import { releaseFilter, watching } from "./watching.ts"

export interface ServingOptions {
  readonly listeners: ListenerOptions
  readonly mapper: MapperOptions
  readonly watch: { readonly engine: EngineAddress; readonly trustImageLabels: boolean } | undefined
  readonly takeover: boolean
  readonly grace: Option.Option<Duration.Duration>
  readonly releaseOnExit: boolean
  /** When TLS files are read anew. */
  readonly renewals: Renewals
}

const defaultGrace = Duration.seconds(10)

/** For a lock that is free, or about to be: another process may have its turn on the state in between. */
const lockWait = Duration.seconds(10)

/** Returns when a successor serves and what was relayed here has ended; a stop is an interruption. */
export const serveUntilSucceeded = Effect.fnUntraced(function* (options: ServingOptions) {
  const life = yield* begin(options)
  while (true) {
    const outcome = yield* Effect.scoped(
      Effect.gen(function* () {
        const conversation = yield* Scope.Scope
        const succession = yield* Effect.scoped(tenure(life, conversation))
        const handed = yield* Effect.result(handOver(life, succession))
        if (Result.isSuccess(handed)) return Option.some(yield* letGo(life, succession))
        const { message } = handed.failure
        yield* Effect.logWarning(`serving again, since nothing was taken over: ${message}`)
        yield* succession.abort(message)
        return Option.none()
      })
    )
    if (Option.isSome(outcome)) return yield* outcome.value
    life.inheritance = undefined
    life.lockWait = lockWait
    yield* life.sockets.adopt(yield* life.sockets.held)
  }
}, Effect.scoped)

/** What lasts as long as the process. */
interface Life {
  readonly options: ServingOptions
  readonly grace: Duration.Duration
  readonly handoverPath: string
  readonly host: Context.Context<HostSockets | Relay | RelayHandover>
  readonly sockets: HostSockets["Service"]
  readonly relay: RelayHandover["Service"]
  readonly keeping: Keeping
  readonly unkept: ReadonlyArray<PassedSocket>
  readonly metrics: Metrics
  readonly notify: Notify
  /** Of the first tenure; none where it was a plain start. */
  inheritance: Inheritance | undefined
  /** At a plain start nobody is to be waited for. */
  lockWait: Duration.Duration | undefined
  offer: Offer | undefined
  /** Whether a successor has all that was here. */
  hasLetGo: boolean
}

/** Where this process is asked to hand over; open until nobody is to ask any more. */
interface Offer {
  readonly connected: Effect.Effect<DescriptorSocket, Errno, Scope.Scope>
  readonly close: Effect.Effect<void>
}

const begin = Effect.fnUntraced(function* (options: ServingOptions) {
  const { stateDirectory, udpIdle } = options.mapper
  const grace = Option.getOrElse(options.grace, () => defaultGrace)
  const handoverPath = Path.join(stateDirectory, handoverSocket)
  const passed = yield* takePassedSockets()
  const notify = yield* takeNotify(sendUnixDatagram)
  const inheritance = options.takeover ? yield* inherit(handoverPath) : undefined
  const keeping = yield* makeKeeping(inheritance?.estate)
  const host = yield* Layer.build(relayLayer({ udpIdle, paused: inheritance !== undefined }))
  const life: Life = {
    options,
    grace,
    handoverPath,
    host,
    sockets: Context.get(host, HostSockets),
    relay: Context.get(host, RelayHandover),
    keeping,
    unkept: keepPassed(passed, keeping),
    metrics: makeMetrics(
      Effect.map(Context.get(host, RelayRefusals), (refused) => ({
        inUse: descriptorsInUse(),
        limit: descriptorLimit(),
        refused
      }))
    ),
    notify,
    inheritance,
    lockWait: inheritance === undefined ? undefined : lockWait,
    offer: undefined,
    hasLetGo: false
  }
  if (inheritance === undefined) yield* keeping.letAccept
  else yield* asTakingOver(life.sockets.adopt(inheritance.estate.sockets))
  yield* Effect.addFinalizer(() =>
    life.hasLetGo ? Effect.void : Effect.flatten(life.relay.drain(life.grace))
  )
  return life
})

const inherit = Effect.fnUntraced(function* (path: string) {
  const inheritance = yield* asTakingOver(takeOver(path))
  yield* Effect.logInfo(
    inheritance === undefined
      ? `starting, since nobody is there to take over from (${path})`
      : `taking over from process ${inheritance.pid}: ${inheritance.estate.sockets.length} ports`
  )
  return inheritance
})

/** Serves until a successor asks; then what is here of a mapper and of listeners ends, and all sockets stay open. */
const tenure = Effect.fnUntraced(function* (life: Life, conversation: Scope.Scope) {
  const { options, keeping, metrics, notify } = life
  keeping.stay()
  const mapper = yield* Layer.build(
    mapperOn({
      ...options.mapper,
      lockWait: life.lockWait,
      listening: () => ownGuards(life),
      onLocked: life.lockWait === undefined ? refuseAmidHandover(life.handoverPath) : Effect.void
    }).pipe(Layer.provide(Layer.succeedContext(life.host)))
  )
  const driver = yield* Effect.provideContext(serving(life), mapper)
  const ownPorts = Context.get(mapper, OwnPorts)
  // Once nobody listens: a successor has its own guards in place by then.
  yield* Effect.addFinalizer(() =>
    keeping.isLeaving()
      ? Effect.void
      : Effect.catch(ownPorts.release, (error) => Effect.logWarning(error.message))
  )
  const listeners = yield* serveListeners(
    options.listeners,
    {
      keeper: keeping,
      renewals: options.renewals,
      pages: {
        "/healthz": Effect.succeed({ contentType: "text/plain; charset=utf-8", body: "ok\n" }),
        "/metrics": metrics.page
      },
      handlers: { [executePath]: executeHandler }
    },
    life.unkept
  ).pipe(Effect.provideService(CallObserver, metrics.observe), Effect.provideService(Driver, driver))
  yield* Effect.mapError(ownPorts.guard, (error) => failed("guarding the plugin's own ports", error.message))
  // A stop begins with what others find this process by: who tries again finds the successor.
  yield* Effect.addFinalizer(() =>
    keeping.isLeaving() ? Effect.void : Effect.andThen(Effect.sync(keeping.close), withdraw(life))
  )
  const tookOver = life.inheritance !== undefined
  yield* takeUp(life)
  yield* Effect.mapError(ownPorts.guard, (error) => failed("guarding the plugin's own ports", error.message))
  const { connected } = yield* offered(life)
  for (const listener of listeners) yield* Console.error(`listening on ${listener}`)
  const { isLeaving } = keeping
  yield* announce(notify, `listening on ${listeners.join(", ")}`, { tookOver, isLeaving })
  const succession = yield* Scope.provide(awaitSuccessor(connected), conversation)
  yield* Effect.logInfo(`process ${succession.pid} takes over`)
  keeping.leave()
  return succession
})

/** For the sockets on loopback addresses; with others a client shows a certificate. */
const ownGuards = ({ keeping, unkept }: Life): ReadonlyArray<Guard> =>
  [...keeping.listeners(), ...unkept].flatMap(({ fd }) => {
    const bound = boundTo(libc(), fd)
    if (bound === undefined || !isLoopback(bound.address)) return []
    return [{ _tag: "Guard", protocol: "tcp", host: bound.address, port: bound.port }]
  })

/** The driver to serve, with all that is to be done for it. */
const serving = Effect.fnUntraced(function* ({ options, keeping, inheritance }: Life) {
  const own = yield* Driver
  const base = inheritance === undefined ? own : afterwards(own, keeping.mayAccept)
  const { watch, mapper, releaseOnExit } = options
  // Neither what a successor has by now, nor what the predecessor may still take back.
  const unlessLeaving = (effect: Effect.Effect<void>) =>
    Effect.suspend(() => (keeping.isLeaving() || !keeping.accepts() ? Effect.void : effect))
  if (releaseOnExit) yield* Effect.addFinalizer(() => unlessLeaving(releaseAtEnd(base)))
  if (watch !== undefined && releaseOnExit) yield* Effect.addFinalizer(() => unlessLeaving(releaseFilter))
  const { acceptMark, dockerUserMark, stateDirectory } = mapper
  if (watch === undefined) return base
  return yield* Effect.provideService(
    watching({
      ...watch,
      stateDirectory,
      mark: acceptMark ?? dockerUserMark,
      begin: keeping.mayAccept
    }),
    Driver,
    base
  )
})

/** Nothing is mapped or unmapped here as long as the predecessor may take back. */
const afterwards = (
  { mapGroups, ...driver }: Driver["Service"],
  ready: Effect.Effect<void>
): Driver["Service"] => ({
  ...driver,
  mapPorts: (group) => Effect.andThen(ready, driver.mapPorts(group)),
  ...(mapGroups === undefined ? {} : { mapGroups: (groups) => Effect.andThen(ready, mapGroups(groups)) }),
  unmapPorts: (release) => Effect.andThen(ready, driver.unmapPorts(release))
})

/** The moment from which this process serves and its predecessor, if it had one, does not. */
const takeUp = Effect.fnUntraced(function* ({ inheritance, relay, keeping }: Life) {
  if (inheritance === undefined) return
  yield* asTakingOver(inheritance.confirm)
  yield* relay.resume
  yield* keeping.letAccept
  for (const place of keeping.closeUnadopted())
    yield* Effect.logInfo(
      `closed what process ${inheritance.pid} listened on and this one does not: ${place}`
    )
})

const asTakingOver = <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.mapError(effect, ({ message }) => failed("taking over", message))

/** Made once; where it can't be had, that is told, and nobody can take over. */
const offered = Effect.fnUntraced(function* (life: Life) {
  if (life.offer !== undefined) return life.offer
  const scope = yield* Scope.make()
  const close = Scope.close(scope, Exit.void)
  const connected = yield* Effect.result(Scope.provide(offerHandover(life.handoverPath), scope))
  if (Result.isFailure(connected))
    yield* Effect.logWarning(
      `no successor can take over, since ${life.handoverPath} can't be had: ${connected.failure.message}`
    )
  const offer: Offer = { connected: Result.getOrElse(connected, () => Effect.never), close }
  life.offer = offer
  return offer
})

const withdraw = (life: Life): Effect.Effect<void> => life.offer?.close ?? Effect.void

const handOver = Effect.fnUntraced(function* ({ keeping, sockets }: Life, succession: Succession) {
  yield* succession.handOver({
    sockets: yield* sockets.held,
    listeners: keeping.listeners(),
    connections: keeping.connections()
  })
})

/** Nothing is taken here any more, the successor is told, and then what was begun goes on: waiting for that is answered. */
const letGo = Effect.fnUntraced(function* (life: Life, succession: Succession) {
  const drained = yield* life.relay.drain(life.grace)
  life.hasLetGo = true
  life.keeping.close()
  yield* withdraw(life)
  const released = yield* Effect.result(succession.release)
  yield* Effect.logInfo(
    `process ${succession.pid} has taken over; connections that are relayed here may go on for ${Duration.format(life.grace)}`
  )
  return Effect.andThen(
    drained,
    Result.isSuccess(released) ? Effect.void : Effect.fail(failed("handing over", released.failure.message))
  )
}, Effect.uninterruptible)

/**
 * A process that serves in generations: one ends when a successor asks to take over, and the next begins if the
 * successor fails. The host's sockets, the relay, the plugin's listeners and the lock on the kernel's table live as
 * long as the process; everything else, the lock on the state directory included, lives for a generation.
 */
import { Context, Duration, Effect, Exit, Layer, Option, Result, Scope } from "effect"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import type { Relay } from "../../src/relay/Relay.ts"
import type { Errno } from "../linux/Libc.ts"
import { makeNamespaceLock, type NamespaceLock } from "../linux/nft/NamespaceLock.ts"
import type { DescriptorSocket } from "../linux/sockets/DescriptorSocket.ts"
import { StateLocked } from "../node/StateLock.ts"
import { RelayHandover, type RelayUse } from "../relay/LinuxRelay.ts"
import { type HeldListeners, holdListeners } from "./HeldListeners.ts"
import { handoverFailed } from "./Messages.ts"
import { awaitSuccessor, offerHandover, type SuccessorSession } from "./Predecessor.ts"
import { type PredecessorSession, refuseAmidHandover, takeOver } from "./Successor.ts"

type Host = HostSockets | Relay | RelayHandover | RelayUse

export interface ProcessOptions<E> {
  /** Where this process asks for a takeover, and accepts one. */
  readonly path: string
  readonly takeover: boolean
  /** How long relayed connections may go on once this process stops. */
  readonly grace: Duration.Duration
  /** A paused relay serves nothing yet. */
  readonly host: (paused: boolean) => Layer.Layer<Host, E>
}

export interface ProcessState {
  readonly path: string
  readonly grace: Duration.Duration
  readonly host: Context.Context<Host>
  readonly handoff: HeldListeners
  /** Held across generations; a successor holds it before it is released here. */
  readonly lock: NamespaceLock
  /** Set during the first generation of a takeover. */
  predecessor: PredecessorSession | undefined
  generation: number
  offer: Offer | undefined
  /** Whether a successor has everything. */
  isSucceeded: boolean
}

/** Where successors connect; open until no successor may connect any more. */
interface Offer {
  readonly connected: Effect.Effect<DescriptorSocket, Errno, Scope.Scope>
  readonly close: Effect.Effect<void>
}

/** With `takeover`, receives everything from the serving process. */
export const startProcess = Effect.fnUntraced(function* <E>(options: ProcessOptions<E>) {
  const { path, grace } = options
  const predecessor = options.takeover ? yield* takenOver(path) : undefined
  const handoff = yield* holdListeners(predecessor?.state)
  const host = yield* Layer.build(options.host(predecessor !== undefined))
  const lock = yield* makeNamespaceLock(undefined, undefined, predecessor?.state.lock)
  const state: ProcessState = {
    ...{ path, grace, host, handoff, lock, predecessor },
    generation: 0,
    offer: undefined,
    isSucceeded: false
  }
  if (predecessor === undefined) yield* handoff.letAccept
  else yield* asTakingOver(Context.get(host, HostSockets).adopt(predecessor.state.sockets))
  yield* Effect.addFinalizer(() => {
    // Connections still relayed don't need the lock.
    lock.release()
    return state.isSucceeded ? Effect.void : Effect.flatten(Context.get(host, RelayHandover).drain(grace))
  })
  return state
})

const takenOver = Effect.fnUntraced(function* (path: string) {
  const predecessor = yield* asTakingOver(takeOver(path))
  yield* Effect.logInfo(
    predecessor === undefined
      ? `starting, since no process offers a takeover at ${path}`
      : `taking over from process ${predecessor.pid}: ${predecessor.state.sockets.length} ports`
  )
  return predecessor
})

const asTakingOver = <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.mapError(effect, ({ message }) => handoverFailed(`taking over: ${message}`))

/** For a lock that is free or about to be: another process may briefly hold the state in between. */
const lockWait = Duration.seconds(10)

/** How a generation locks the state directory: a plain start does not wait, and fails during a handover. */
export const stateLocking = ({ path, predecessor, generation }: ProcessState) =>
  predecessor === undefined && generation === 0
    ? { lockWait: undefined, onLocked: refuseAmidHandover(path) }
    : { lockWait, onLocked: undefined }

/**
 * Returns when a successor serves and the connections relayed here have ended; a stop is an interruption.
 * `generation` builds everything that serves; the effect that it returns runs once this process alone serves. All of
 * it ends with its scope.
 */
export const runGenerations = Effect.fnUntraced(function* <E, E2, R>(
  state: ProcessState,
  generation: Effect.Effect<Effect.Effect<void, E2, R | Scope.Scope>, E, R | Scope.Scope>
) {
  while (true) {
    const ending = yield* Effect.scoped(
      Effect.gen(function* () {
        const conversation = yield* Scope.Scope
        const session = yield* Effect.scoped(serveOnce(state, generation, conversation)).pipe(
          Effect.retry({ while: (error) => isStateTaken(state, error) })
        )
        const handed = yield* Effect.result(handOver(state, session))
        if (Result.isSuccess(handed)) return Option.some(yield* letGo(state, session))
        const { message } = handed.failure
        yield* Effect.logWarning(`serving again, since nothing was taken over: ${message}`)
        yield* session.abort(message)
        return Option.none()
      })
    )
    if (Option.isSome(ending)) return yield* ending.value
    state.predecessor = undefined
    state.generation++
    const sockets = Context.get(state.host, HostSockets)
    yield* sockets.adopt(yield* sockets.held)
  }
})

/** After a failed takeover a third process may hold the state: this one resumes serving once that one has ended. */
const isStateTaken = ({ generation }: ProcessState, error: unknown) =>
  generation === 0 || !(error instanceof StateLocked)
    ? Effect.succeed(false)
    : Effect.as(Effect.logWarning(`waiting to serve again: ${error.message}`), true)

/** Serves until a successor asks to take over; then everything ends except what the process keeps. */
const serveOnce = Effect.fnUntraced(function* <E, E2, R>(
  state: ProcessState,
  generation: Effect.Effect<Effect.Effect<void, E2, R | Scope.Scope>, E, R | Scope.Scope>,
  conversation: Scope.Scope
) {
  const { handoff } = state
  handoff.stay()
  const serving = yield* generation
  // A stop first closes the sockets by which other processes find this one: a retry then reaches the successor.
  yield* Effect.addFinalizer(() =>
    handoff.isLeaving() ? Effect.void : Effect.andThen(Effect.sync(handoff.close), withdraw(state))
  )
  yield* confirmTakeover(state)
  const { connected } = yield* offered(state)
  yield* serving
  const session = yield* Scope.provide(awaitSuccessor(connected), conversation)
  yield* Effect.logInfo(`process ${session.pid} takes over`)
  handoff.leave()
  return session
})

/** From here on this process serves, and its predecessor, if any, no longer does. */
const confirmTakeover = Effect.fnUntraced(function* ({ predecessor, host, handoff }: ProcessState) {
  if (predecessor === undefined) return
  yield* asTakingOver(predecessor.confirm)
  yield* Context.get(host, RelayHandover).resume
  yield* handoff.letAccept
  for (const place of handoff.closeUnadopted())
    yield* Effect.logInfo(
      `closed what process ${predecessor.pid} listened on and this one does not: ${place}`
    )
})

/** Created once; if that fails, it is logged, and no process can take over. */
const offered = Effect.fnUntraced(function* (state: ProcessState) {
  if (state.offer !== undefined) return state.offer
  const scope = yield* Scope.make()
  const close = Scope.close(scope, Exit.void)
  const connected = yield* Effect.result(Scope.provide(offerHandover(state.path), scope))
  if (Result.isFailure(connected))
    yield* Effect.logWarning(
      `no successor can take over, since ${state.path} is not available: ${connected.failure.message}`
    )
  const offer: Offer = { connected: Result.getOrElse(connected, () => Effect.never), close }
  state.offer = offer
  return offer
})

const withdraw = ({ offer }: ProcessState): Effect.Effect<void> => offer?.close ?? Effect.void

const handOver = Effect.fnUntraced(function* (
  { handoff, host, lock }: ProcessState,
  session: SuccessorSession
) {
  yield* session.handOver({
    sockets: yield* Context.get(host, HostSockets).held,
    listeners: handoff.listeners(),
    connections: handoff.connections(),
    lock: lock.descriptor()
  })
})

/** Stops accepting and releases the successor; returns an effect that waits for the connections still relayed here. */
const letGo = Effect.fnUntraced(function* (state: ProcessState, session: SuccessorSession) {
  const drained = yield* Context.get(state.host, RelayHandover).drain(state.grace)
  state.isSucceeded = true
  state.handoff.close()
  state.lock.release()
  yield* withdraw(state)
  const released = yield* Effect.result(session.release)
  yield* Effect.logInfo(
    `process ${session.pid} has taken over; connections that are relayed here may go on for ${Duration.format(state.grace)}`
  )
  return Effect.andThen(
    drained,
    Result.isSuccess(released)
      ? Effect.void
      : Effect.fail(handoverFailed(`handing over: ${released.failure.message}`))
  )
}, Effect.uninterruptible)

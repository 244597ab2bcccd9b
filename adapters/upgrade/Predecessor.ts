/** The side of a handover that serves: waits for a successor, sends it everything, and stops once the successor could serve. */
import * as Fs from "node:fs"
import { Duration, Effect, Exit, Result, Scope } from "effect"
import type { Errno } from "../linux/Libc.ts"
import { type DescriptorSocket, listenForDescriptors } from "../linux/sockets/DescriptorSocket.ts"
import { awaitExit, longestSilence, receive, send, sendBusy } from "./Channel.ts"
import { type HandoverState, sendState } from "./HandoverState.ts"
import { type HandoverError, handoverFailed, versionRefusal } from "./Messages.ts"

/** A successor that was accepted and waits for what it is given. */
export interface SuccessorSession {
  readonly pid: number
  /** Gives it all, and waits until it could serve. To be called with nothing served any more, and no lock held. */
  readonly handOver: (state: HandoverState) => Effect.Effect<void, HandoverError>
  /** Lets it serve. To be called with everything closed that it was given. */
  readonly release: Effect.Effect<void, HandoverError>
  /** Tells it why it is not to serve, and waits for its end; one that does not end is killed. */
  readonly abort: (reason: string) => Effect.Effect<void>
}

export interface Timeouts {
  /** Between two messages of a successor. */
  readonly silence: Duration.Input
  /** A successor receives everything and brings back all of its mappings meanwhile. */
  readonly ready: Duration.Input
  /** For the end of one that was told to. */
  readonly gone: Duration.Input
}

/** With the three seconds that requests in flight may take before, an Engine is answered within its 15 seconds in any case. */
export const timeouts: Timeouts = { silence: longestSilence, ready: "8 seconds", gone: "1 second" }

/** Waits at a path for who asks to take over, until the scope closes. */
export const offerHandover = listenForDescriptors

/**
 * Waits for a successor of the same user and version, for as long as it takes; any other is told why it is refused, and
 * nothing changes. The conversation lasts as long as the scope.
 */
export const awaitSuccessor = (
  connected: Effect.Effect<DescriptorSocket, Errno, Scope.Scope>,
  waits: Timeouts = timeouts
): Effect.Effect<SuccessorSession, never, Scope.Scope> =>
  Effect.gen(function* () {
    while (true) {
      const scope = yield* Scope.fork(yield* Scope.Scope)
      const socket = yield* Scope.provide(eventually(connected), scope)
      const refused = yield* Effect.result(accept(socket, waits))
      if (Result.isSuccess(refused)) {
        yield* Scope.provide(sendBusy(socket), scope)
        return sessionOf(socket, waits)
      }
      yield* Effect.logWarning(`nothing is handed over: ${refused.failure.message}`)
      yield* Scope.close(scope, Exit.void)
    }
  })

/** Where descriptors lack, one may be free later. */
const eventually = <A, R>(connected: Effect.Effect<A, Errno, R>): Effect.Effect<A, never, R> =>
  Effect.catch(connected, () => Effect.andThen(Effect.sleep("1 second"), eventually(connected)))

const accept = Effect.fnUntraced(function* (socket: DescriptorSocket, { silence }: Timeouts) {
  const { pid, uid } = socket.peer
  const user = process.getuid?.() ?? uid
  const received = yield* Effect.result(receive(socket, silence, "Hello"))
  const refusal =
    uid !== user
      ? `process ${pid} of user ${uid} may not take over from process ${process.pid} of user ${user}`
      : Result.isFailure(received)
        ? received.failure.message
        : received.success === undefined
          ? `process ${pid} left without a message`
          : (versionRefusal(received.success.message.version, process.pid) ?? networkRefusal(pid))
  if (Result.isSuccess(received)) for (const fd of received.success?.fds ?? []) Fs.closeSync(fd)
  if (refusal === undefined) return yield* send(socket, { _tag: "Accepted" })
  yield* Effect.ignore(send(socket, { _tag: "Refused", reason: refusal }))
  return yield* handoverFailed(refusal)
})

/** The ports would stay in this namespace, and the kernel's table go to that one. Unknown where `/proc` does not tell. */
const networkRefusal = (pid: number): string | undefined => {
  const [own, other] = ["self", pid].map((of) => networkOf(`/proc/${of}/ns/net`))
  return own === undefined || other === undefined || own === other
    ? undefined
    : `process ${pid} is in another network namespace than process ${process.pid}`
}

const networkOf = (path: string): string | undefined => {
  try {
    return Fs.readlinkSync(path)
  } catch {
    return undefined
  }
}

const sessionOf = (socket: DescriptorSocket, { silence, ready, gone }: Timeouts): SuccessorSession => {
  const { pid } = socket.peer
  return {
    pid,
    handOver: (state) =>
      Effect.gen(function* () {
        yield* sendState(socket, state)
        const answer = yield* receive(socket, silence, "Ready")
        if (answer === undefined) return yield* handoverFailed(`process ${pid} ended before it could serve`)
      }).pipe(
        Effect.timeoutOrElse({
          duration: ready,
          orElse: () =>
            Effect.fail(
              handoverFailed(
                `process ${pid} could not serve within ${Duration.format(Duration.fromInputUnsafe(ready))}`
              )
            )
        })
      ),
    release: send(socket, { _tag: "Released" }),
    abort: Effect.fnUntraced(function* (reason) {
      yield* Effect.ignore(send(socket, { _tag: "Aborted", reason }))
      yield* awaitExit(socket, gone)
    })
  }
}

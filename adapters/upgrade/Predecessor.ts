/** The serving side of a handover: waits for a successor, sends it everything, and stops once that could serve. */
import * as Fs from "node:fs"
import { Duration, Effect, Exit, Result, Scope } from "effect"
import type { Errno } from "../linux/Libc.ts"
import { type DescriptorSocket, listenForDescriptors } from "../linux/sockets/DescriptorSocket.ts"
import { attempt } from "../node/FileText.ts"
import { awaitExit, longestSilence, receive, send, sendBusy } from "./Channel.ts"
import { type HandoverState, sendState } from "./HandoverState.ts"
import { type HandoverError, handoverFailed, versionRefusal } from "./Messages.ts"

/** An accepted successor that waits for the state. */
export interface SuccessorSession {
  readonly pid: number
  /** Sends the state; waits until the successor could serve. Call it once nothing is served and no lock is held. */
  readonly handOver: (state: HandoverState) => Effect.Effect<void, HandoverError>
  /** Lets the successor serve. Call it once everything that was sent is closed here. */
  readonly release: Effect.Effect<void, HandoverError>
  /** Sends the reason why it must not serve, and waits for its end; kills it if it does not end. */
  readonly abort: (reason: string) => Effect.Effect<void>
}

export interface Timeouts {
  /** Between two messages of a successor. */
  readonly silence: Duration.Input
  /** For a successor to receive everything and restore all mappings. */
  readonly ready: Duration.Input
  /** For a successor to end after an abort. */
  readonly gone: Duration.Input
}

/**
 * Together with up to 3 seconds for requests in flight, this keeps every answer to an Engine within its 15 seconds.
 */
const timeouts: Timeouts = { silence: longestSilence, ready: "8 seconds", gone: "1 second" }

/** Listens at a path for successors, until the scope closes. */
export const offerHandover = listenForDescriptors

/**
 * Waits without a limit for a successor of the same user and version; refuses any other with the reason, and then
 * nothing changes. The session lasts as long as the scope.
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

/** Retries: if no descriptor is free now, one may be later. */
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

/** The ports would stay in our namespace, without the kernel's table. Not checked if `/proc` can't be read. */
const networkRefusal = (pid: number): string | undefined => {
  const [own, other] = ["self", pid].map((of) => attempt(() => Fs.readlinkSync(`/proc/${of}/ns/net`)))
  return own === undefined || other === undefined || own === other
    ? undefined
    : `process ${pid} is in another network namespace than process ${process.pid}`
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

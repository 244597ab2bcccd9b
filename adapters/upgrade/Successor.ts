/** The other side of a handover: requests the state, and reports when it could serve. */
import { Effect, type Scope } from "effect"
import * as C from "../linux/Libc.ts"
import { connectForDescriptors, type DescriptorSocket } from "../linux/sockets/DescriptorSocket.ts"
import { awaitExit, hasEnded, longestSilence, receive, send, sendBusy } from "./Channel.ts"
import { type HandoverState, StateReceiver } from "./HandoverState.ts"
import { type HandoverError, handoverFailed, handoverVersion } from "./Messages.ts"

export interface PredecessorSession {
  /** The process that handed over. */
  readonly pid: number
  readonly state: HandoverState
  /**
   * Reports that this process could serve, and waits until the predecessor has let go: from then on it no longer
   * serves. Fails if the predecessor resumes serving instead.
   */
  readonly confirm: Effect.Effect<void, HandoverError>
}

/**
 * Takes over from the process that offers it at this path. `undefined` if there is none, or if it ended before it had
 * handed over everything: then there is no process left to take over from. This process owns what it receives.
 */
export const takeOver = (
  path: string
): Effect.Effect<PredecessorSession | undefined, HandoverError, Scope.Scope> =>
  Effect.gen(function* () {
    const connected = yield* Effect.result(connectForDescriptors(path))
    if (connected._tag === "Failure") {
      const { errno, message } = connected.failure
      if (errno === C.ENOENT || errno === C.ECONNREFUSED) return undefined
      return yield* handoverFailed(`asking for it at ${path} failed: ${message}`)
    }
    const socket = connected.success
    const greeted = yield* Effect.result(send(socket, { _tag: "Hello", version: handoverVersion }))
    // The predecessor may refuse before it has received anything: read its reason even if sending failed.
    const answer = yield* receive(socket, longestSilence, "Accepted", "Refused")
    if (answer?.message._tag === "Refused") return yield* handoverFailed(answer.message.reason)
    if (answer === undefined || greeted._tag === "Failure") return undefined
    yield* sendBusy(socket)
    const receiver = new StateReceiver()
    const complete = yield* Effect.onError(receiveState(socket, receiver), () =>
      Effect.sync(() => receiver.closeAll())
    )
    if (!complete) return undefined
    return { pid: socket.peer.pid, state: receiver.state, confirm: confirm(socket) }
  })

/**
 * For a plain start that has the lock: fails if another process still offers its handover here, since that process has
 * released the lock for a successor, which is about to take it.
 */
export const refuseAmidHandover = (path: string): Effect.Effect<void, HandoverError> =>
  Effect.scoped(
    Effect.matchEffect(connectForDescriptors(path), {
      onFailure: () => Effect.void,
      // A process that was killed releases its lock a moment before it closes this socket.
      onSuccess: (socket) =>
        Effect.flatMap(hasEnded(socket, "1 second"), (isOver) =>
          isOver
            ? Effect.void
            : Effect.fail(handoverFailed(`process ${socket.peer.pid} is handing over to another one`))
        )
    })
  )

const stateTags = ["Sockets", "Listeners", "Connections", "Lock", "Handed"] as const

/** Receives the state; returns whether it is complete. */
const receiveState = Effect.fnUntraced(function* (socket: DescriptorSocket, receiver: StateReceiver) {
  while (true) {
    const received = yield* receive(socket, longestSilence, ...stateTags)
    if (received === undefined) {
      yield* Effect.logWarning(`process ${socket.peer.pid} ended before it had handed over everything`)
      receiver.closeAll()
      return false
    }
    if (received.message._tag === "Handed") return true
    const wrong = receiver.add(received.message, received.fds)
    if (wrong !== undefined)
      return yield* handoverFailed(`process ${socket.peer.pid} handed over what can't be used: ${wrong}`)
  }
})

const confirm = Effect.fnUntraced(function* (socket: DescriptorSocket) {
  const { pid } = socket.peer
  const alone = Effect.logWarning(`process ${pid} ended before it let go; this one serves in its place`)
  const announced = yield* Effect.result(send(socket, { _tag: "Ready" }))
  if (announced._tag === "Failure") return yield* alone
  const answer = yield* Effect.result(receive(socket, longestSilence, "Released", "Aborted"))
  if (answer._tag === "Failure") {
    yield* Effect.logWarning(answer.failure.message)
    yield* awaitExit(socket, 0)
    return yield* alone
  }
  if (answer.success === undefined) return yield* alone
  const { message } = answer.success
  if (message._tag === "Aborted")
    return yield* handoverFailed(`process ${pid} serves again: ${message.reason}`)
})

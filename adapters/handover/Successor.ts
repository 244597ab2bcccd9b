/** The side of a handover that is about to serve: asks for it all, and tells when it could serve. */
import { Effect, type Scope } from "effect"
import { connectForDescriptors, type DescriptorSocket } from "../linux/DescriptorSocket.ts"
import * as C from "../linux/Libc.ts"
import { awaitEnd, hear, longestSilence, say, sayBusy } from "./Conversation.ts"
import { type Estate, Receiving } from "./Estate.ts"
import { type HandoverError, handoverFailed, handoverVersion } from "./Messages.ts"

export interface Inheritance {
  /** The process that handed over. */
  readonly pid: number
  readonly estate: Estate
  /**
   * Tells that all that is needed to serve is in place, and waits for the other to let go: from then on nobody else serves.
   * Fails where it serves again instead.
   */
  readonly confirm: Effect.Effect<void, HandoverError>
}

/**
 * Takes over from who offers it at this path; `undefined` where nobody does, or where it ended before it had handed over
 * everything: then there is nobody to take over from any more. What is received is this process's own.
 */
export const takeOver = (path: string): Effect.Effect<Inheritance | undefined, HandoverError, Scope.Scope> =>
  Effect.gen(function* () {
    const connected = yield* Effect.result(connectForDescriptors(path))
    if (connected._tag === "Failure") {
      const { errno, message } = connected.failure
      if (errno === C.ENOENT || errno === C.ECONNREFUSED) return undefined
      return yield* handoverFailed(`asking for it at ${path} failed: ${message}`)
    }
    const socket = connected.success
    const said = yield* Effect.result(say(socket, { _tag: "Hello", version: handoverVersion }))
    // Refused without having been heard, one is told why all the same.
    const answer = yield* hear(socket, longestSilence, "Accepted", "Refused")
    if (answer?.message._tag === "Refused") return yield* handoverFailed(answer.message.reason)
    if (answer === undefined || said._tag === "Failure") return undefined
    yield* sayBusy(socket)
    const receiving = new Receiving()
    const complete = yield* Effect.onError(receive(socket, receiving), () =>
      Effect.sync(() => receiving.closeAll())
    )
    if (!complete) return undefined
    return { pid: socket.peer.pid, estate: receiving.estate, confirm: confirm(socket) }
  })

/**
 * For a plain start that has the lock: refuses where a process still offers its handover here, since it then has given up
 * the lock for the sake of a successor that is about to take it.
 */
export const refuseAmidHandover = (path: string): Effect.Effect<void, HandoverError> =>
  Effect.scoped(
    Effect.matchEffect(connectForDescriptors(path), {
      onFailure: () => Effect.void,
      onSuccess: ({ peer }) =>
        Effect.fail(handoverFailed(`process ${peer.pid} is handing over to another one`))
    })
  )

/** Whether everything has come. */
const receive = Effect.fnUntraced(function* (socket: DescriptorSocket, receiving: Receiving) {
  while (true) {
    const heard = yield* hear(socket, longestSilence, "Sockets", "Listeners", "Connections", "Lock", "Handed")
    if (heard === undefined) {
      yield* Effect.logWarning(`process ${socket.peer.pid} ended before it had handed over everything`)
      receiving.closeAll()
      return false
    }
    if (heard.message._tag === "Handed") return true
    const wrong = receiving.add(heard.message, heard.fds)
    if (wrong !== undefined)
      return yield* handoverFailed(`process ${socket.peer.pid} handed over what can't be used: ${wrong}`)
  }
})

const confirm = Effect.fnUntraced(function* (socket: DescriptorSocket) {
  const { pid } = socket.peer
  const alone = Effect.logWarning(`process ${pid} ended before it let go; this one serves in its place`)
  const told = yield* Effect.result(say(socket, { _tag: "Ready" }))
  if (told._tag === "Failure") return yield* alone
  const answer = yield* Effect.result(hear(socket, longestSilence, "Released", "Aborted"))
  if (answer._tag === "Failure") {
    yield* Effect.logWarning(answer.failure.message)
    yield* awaitEnd(socket, 0)
    return yield* alone
  }
  if (answer.success === undefined) return yield* alone
  const { message } = answer.success
  if (message._tag === "Aborted")
    return yield* handoverFailed(`process ${pid} serves again: ${message.reason}`)
})

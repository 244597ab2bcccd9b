/** The side of a handover that serves: waits for a successor, gives it all, and lets go once it could serve. */
import * as Fs from "node:fs"
import { type Duration, Effect, Exit, Result, Scope } from "effect"
import { type DescriptorSocket, listenForDescriptors } from "../linux/DescriptorSocket.ts"
import type { Errno } from "../linux/Libc.ts"
import { hear, say } from "./Conversation.ts"
import { type Estate, type HandoverError, handoverFailed, sendEstate } from "./Estate.ts"
import { versionRefusal } from "./Messages.ts"

/** A successor that was accepted and waits for what it is given. */
export interface Succession {
  readonly pid: number
  /** Gives it all, and waits until it could serve. To be called with nothing served any more, and no lock held. */
  readonly handOver: (estate: Estate) => Effect.Effect<void, HandoverError>
  /** Lets it serve. To be called with everything closed that it was given. */
  readonly release: Effect.Effect<void, HandoverError>
  /** Tells it why it is not to serve, and waits for its end; one that does not end is killed. */
  readonly abort: (reason: string) => Effect.Effect<void>
}

export interface Patience {
  /** For the first word of who connects. */
  readonly hello: Duration.Input
  /** From the last descriptor on: a successor brings back all of its mappings meanwhile. */
  readonly ready: Duration.Input
  /** For the end of one that was told to. */
  readonly gone: Duration.Input
}

export const patience: Patience = { hello: "5 seconds", ready: "30 seconds", gone: "3 seconds" }

/** Waits at a path for who asks to take over, until the scope closes. */
export const offerHandover = listenForDescriptors

/**
 * Waits for a successor of the same user and version, for as long as it takes; any other is told why it is refused, and
 * nothing changes. The conversation lasts as long as the scope.
 */
export const awaitSuccessor = (
  connected: Effect.Effect<DescriptorSocket, Errno, Scope.Scope>,
  waits: Patience = patience
): Effect.Effect<Succession, never, Scope.Scope> =>
  Effect.gen(function* () {
    while (true) {
      const scope = yield* Scope.fork(yield* Scope.Scope)
      const socket = yield* Scope.provide(eventually(connected), scope)
      const refused = yield* Effect.result(accept(socket, waits))
      if (Result.isSuccess(refused)) return successionOf(socket, waits)
      yield* Effect.logWarning(`nothing is handed over: ${refused.failure.message}`)
      yield* Scope.close(scope, Exit.void)
    }
  })

/** Where descriptors lack, one may be free later. */
const eventually = <A, R>(connected: Effect.Effect<A, Errno, R>): Effect.Effect<A, never, R> =>
  Effect.catch(connected, () => Effect.andThen(Effect.sleep("1 second"), eventually(connected)))

const accept = Effect.fnUntraced(function* (socket: DescriptorSocket, { hello }: Patience) {
  const { pid, uid } = socket.peer
  const user = process.getuid?.() ?? uid
  const heard = yield* Effect.result(hear(socket, hello, "Hello"))
  const refusal =
    uid !== user
      ? `process ${pid} of user ${uid} may not take over from process ${process.pid} of user ${user}`
      : Result.isFailure(heard)
        ? heard.failure.message
        : heard.success === undefined
          ? `process ${pid} left without a word`
          : (versionRefusal(heard.success.message.version, process.pid) ?? networkRefusal(pid))
  if (Result.isSuccess(heard)) for (const fd of heard.success?.fds ?? []) Fs.closeSync(fd)
  if (refusal === undefined) return yield* say(socket, { _tag: "Accepted" })
  yield* Effect.ignore(say(socket, { _tag: "Refused", reason: refusal }))
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

const successionOf = (socket: DescriptorSocket, { ready, gone }: Patience): Succession => {
  const { pid } = socket.peer
  return {
    pid,
    handOver: Effect.fnUntraced(function* (estate) {
      yield* Effect.mapError(sendEstate(socket, estate), (error) =>
        handoverFailed(`process ${pid} can't be given what it asked for: ${error.message}`)
      )
      const answer = yield* hear(socket, ready, "Ready")
      if (answer === undefined) return yield* handoverFailed(`process ${pid} ended before it could serve`)
    }),
    release: say(socket, { _tag: "Released" }),
    abort: Effect.fnUntraced(function* (reason) {
      yield* Effect.ignore(say(socket, { _tag: "Aborted", reason }))
      if (yield* hasEnded(socket, gone)) return
      // It holds its end of the socket, so the number is still its own.
      yield* Effect.logWarning(`process ${pid} does not end, and is killed`)
      yield* Effect.sync(() => killUnlessGone(pid))
      yield* hasEnded(socket, gone)
    })
  }
}

/** Whatever it still says is too late. */
const hasEnded = (socket: DescriptorSocket, wait: Duration.Input): Effect.Effect<boolean> =>
  Effect.repeat(
    Effect.catch(socket.receive, () => Effect.succeed(undefined)),
    { while: (packet) => packet !== undefined }
  ).pipe(Effect.as(true), Effect.timeoutOrElse({ duration: wait, orElse: () => Effect.succeed(false) }))

const killUnlessGone = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch {
    // It has ended by itself meanwhile.
  }
}

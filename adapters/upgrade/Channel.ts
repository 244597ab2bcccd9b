/** Sends and receives messages over a socket that carries descriptors, with timeouts. */
import * as Fs from "node:fs"
import { Duration, Effect, Option, Result, type Scope } from "effect"
import type { DescriptorSocket } from "../linux/sockets/DescriptorSocket.ts"
import {
  decodeMessage,
  encodeMessage,
  type HandoverError,
  handoverFailed,
  type Message,
  type MessageOf,
  type Tag
} from "./Messages.ts"

export interface Received<T extends Tag> {
  readonly message: MessageOf<T>
  /** Owned by the receiver from now on; empty for messages without descriptors. */
  readonly fds: ReadonlyArray<number>
}

/** A process that sends or reads nothing for this long hangs. An Engine waits 15 seconds in all for its plugin. */
export const longestSilence = Duration.seconds(3)

/** Sends a message. The descriptors stay open here, too. */
export const send = (
  socket: DescriptorSocket,
  message: Message,
  fds: ReadonlyArray<number> = []
): Effect.Effect<void, HandoverError> => {
  const failed = (why: string) =>
    handoverFailed(`process ${socket.peer.pid} can't be sent ${message._tag}: ${why}`)
  return socket.send({ bytes: encodeMessage(message), fds }).pipe(
    Effect.mapError((error) => failed(error.message)),
    Effect.timeoutOrElse({
      duration: longestSilence,
      orElse: () => Effect.fail(failed(`it read nothing for ${Duration.format(longestSilence)}`))
    })
  )
}

/** Sends `Busy` every second, until the scope closes. */
export const sendBusy = (socket: DescriptorSocket): Effect.Effect<void, never, Scope.Scope> =>
  Effect.sleep("1 second").pipe(
    Effect.andThen(Effect.ignore(send(socket, { _tag: "Busy" }))),
    Effect.forever,
    Effect.forkScoped,
    Effect.asVoid
  )

/** The next message of an expected kind; `undefined` if the other side has ended. Fails on others and on silence. */
export const receive = <T extends Tag>(
  socket: DescriptorSocket,
  silence: Duration.Input,
  ...expected: ReadonlyArray<T>
): Effect.Effect<Received<T> | undefined, HandoverError> =>
  Effect.gen(function* () {
    const { pid } = socket.peer
    while (true) {
      const received = yield* Effect.timeoutOption(socket.receive, silence).pipe(
        Effect.mapError((error) =>
          handoverFailed(`process ${pid} sent what can't be received: ${error.message}`)
        )
      )
      if (Option.isNone(received))
        return yield* handoverFailed(
          `process ${pid} sent nothing for ${Duration.format(Duration.fromInputUnsafe(silence))}`
        )
      const packet = received.value
      if (packet === undefined) return undefined
      const message = decodeMessage(packet.bytes, ...expected)
      if (Result.isSuccess(message)) return { message: message.success, fds: packet.fds }
      for (const fd of packet.fds) Fs.closeSync(fd)
      if (message.failure !== "Busy")
        return yield* handoverFailed(
          `process ${pid} sent ${message.failure} where ${expected.join(" or ")} was to come`
        )
    }
  })

/** Waits until the other side ends, and ignores what it still sends. Kills it if it does not end in time. */
export const awaitExit = Effect.fnUntraced(function* (socket: DescriptorSocket, wait: Duration.Input) {
  const { pid } = socket.peer
  if (yield* hasEnded(socket, wait)) return
  // It still holds its end of the socket, so the process id has not been reused.
  yield* Effect.logWarning(`process ${pid} does not end, and is killed`)
  yield* Effect.sync(() => killUnlessGone(pid))
  yield* hasEnded(socket, longestSilence)
})

/** Whether the other side ends within this time. */
export const hasEnded = (socket: DescriptorSocket, wait: Duration.Input): Effect.Effect<boolean> =>
  Effect.repeat(
    Effect.catch(socket.receive, () => Effect.succeed(undefined)),
    { while: (packet) => packet !== undefined }
  ).pipe(Effect.as(true), Effect.timeoutOrElse({ duration: wait, orElse: () => Effect.succeed(false) }))

const killUnlessGone = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch {
    // It has ended meanwhile.
  }
}

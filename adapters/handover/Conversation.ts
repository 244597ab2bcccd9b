/** Messages over a socket that carries descriptors: said, and heard within a time. */
import * as Fs from "node:fs"
import { Duration, Effect, Option, Result } from "effect"
import type { DescriptorSocket } from "../linux/DescriptorSocket.ts"
import { type HandoverError, handoverFailed } from "./Estate.ts"
import { decodeMessage, encodeMessage, type Message, type MessageOf, type Tag } from "./Messages.ts"

export interface Heard<T extends Tag> {
  readonly message: MessageOf<T>
  /** The hearer's own from now on; only those of a message that has them. */
  readonly fds: ReadonlyArray<number>
}

export const say = (socket: DescriptorSocket, message: Message): Effect.Effect<void, HandoverError> =>
  Effect.mapError(socket.send({ bytes: encodeMessage(message), fds: [] }), (error) =>
    handoverFailed(`process ${socket.peer.pid} can't be told ${message._tag}: ${error.message}`)
  )

/** The next message, one of these; `undefined` where the other side has ended. Anything else is a failure. */
export const hear = <T extends Tag>(
  socket: DescriptorSocket,
  wait: Duration.Input,
  ...expected: ReadonlyArray<T>
): Effect.Effect<Heard<T> | undefined, HandoverError> =>
  Effect.gen(function* () {
    const { pid } = socket.peer
    const received = yield* Effect.timeoutOption(socket.receive, wait).pipe(
      Effect.mapError((error) => handoverFailed(`process ${pid} can't be heard: ${error.message}`))
    )
    if (Option.isNone(received))
      return yield* handoverFailed(
        `process ${pid} said nothing for ${Duration.format(Duration.fromInputUnsafe(wait))}`
      )
    const packet = received.value
    if (packet === undefined) return undefined
    const message = decodeMessage(packet.bytes, ...expected)
    if (Result.isSuccess(message)) return { message: message.success, fds: packet.fds }
    for (const fd of packet.fds) Fs.closeSync(fd)
    return yield* handoverFailed(
      `process ${pid} said ${message.failure} where ${expected.join(" or ")} was to come`
    )
  })

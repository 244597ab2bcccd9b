/**
 * What two processes send to each other when one takes over from the other: a packet each, JSON, with descriptors where it
 * says so. `Hello` and `Refused` are for every version to understand; the rest is this version's.
 *
 *     successor                      predecessor
 *     Hello                      ->
 *                                <-  Refused, or Accepted: it stops serving
 *                                <-  Sockets, Listeners, Connections, Lock: with a descriptor for each of their items
 *                                <-  Handed: that was all, and the state directory is unlocked
 *     Ready: it could serve now  ->
 *                                <-  Released: it has let go of all that; or Aborted: it serves again
 *
 * From `Accepted` on each sends `Busy` every second, so that one that hangs is known by its silence.
 *
 * Either may end or hang instead. Until `Ready` the predecessor takes back; from `Handed` on the successor goes on alone where
 * the predecessor has ended, and from `Ready` on where it hangs. One that hangs is killed before the other goes on, and both
 * hold to the lock on the state directory: they never serve at once.
 */
import { Result, Schema } from "effect"
import { Protocol } from "../../src/protocol/Protocol.ts"

export const handoverVersion = 2

/** Why a handover came to nothing. */
export class HandoverError extends Schema.TaggedError<HandoverError>()("HandoverError", {
  message: Schema.String
}) {}

export const handoverFailed = (message: string): HandoverError => new HandoverError({ message })

const Item = {
  /** A reserved socket: an address in its canonical form, with its zone. */
  Socket: Schema.Struct({ protocol: Protocol, host: Schema.String, port: Schema.Int }),
  /** The plugin's own. See `ListenerHandoff` for places and details. */
  Listener: Schema.Struct({
    place: Schema.String,
    inode: Schema.optionalKey(Schema.Int),
    port: Schema.optionalKey(Schema.Int),
    spec: Schema.optionalKey(Schema.Struct({ path: Schema.String, content: Schema.String }))
  }),
  /** An idle connection of one of its clients. */
  Connection: Schema.Struct({ place: Schema.String })
}

const Message = Schema.Union([
  Schema.TaggedStruct("Hello", { version: Schema.Int }),
  Schema.TaggedStruct("Refused", { reason: Schema.String }),
  Schema.TaggedStruct("Accepted", {}),
  Schema.TaggedStruct("Sockets", { items: Schema.Array(Item.Socket) }),
  Schema.TaggedStruct("Listeners", { items: Schema.Array(Item.Listener) }),
  Schema.TaggedStruct("Connections", { items: Schema.Array(Item.Connection) }),
  /** The lock on the kernel's table, if it is held. */
  Schema.TaggedStruct("Lock", { items: Schema.Array(Schema.Struct({})) }),
  Schema.TaggedStruct("Handed", {}),
  Schema.TaggedStruct("Busy", {}),
  Schema.TaggedStruct("Ready", {}),
  Schema.TaggedStruct("Released", {}),
  Schema.TaggedStruct("Aborted", { reason: Schema.String })
])

export type Message = typeof Message.Type
export type Tag = Message["_tag"]
export type MessageOf<T extends Tag> = Extract<Message, { readonly _tag: T }>

const Text = Schema.fromJsonString(Message)
const decodeText = Schema.decodeUnknownResult(Text)

export const encodeMessage = (message: Message): Uint8Array =>
  new TextEncoder().encode(Schema.encodeSync(Text)(message))

/** The message of one of these kinds; or, in words, what came instead. */
export const decodeMessage = <T extends Tag>(
  bytes: Uint8Array,
  ...expected: ReadonlyArray<T>
): Result.Result<MessageOf<T>, string> => {
  const decoded = decodeText(new TextDecoder().decode(bytes))
  if (Result.isFailure(decoded)) return Result.fail("something that is no message of a handover")
  const message = decoded.success
  return isOneOf(message, expected) ? Result.succeed(message) : Result.fail(message._tag)
}

const isOneOf = <T extends Tag>(message: Message, tags: ReadonlyArray<T>): message is MessageOf<T> =>
  tags.some((tag) => tag === message._tag)

/** The rule of versions: equal, or the younger one has to be stopped and started. */
export const versionRefusal = (asked: number, pid: number): string | undefined =>
  asked === handoverVersion
    ? undefined
    : `process ${pid} hands over by version ${handoverVersion}, and was asked by version ${asked}; stop it, then start this one`

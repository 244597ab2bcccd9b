/**
 * The messages of a takeover between two processes: one packet each, JSON, some with descriptors. Every version
 * understands `Hello` and `Refused`; the rest may differ between versions.
 *
 *     successor                      predecessor
 *     Hello                      ->
 *                                <-  Refused, or Accepted: it stops serving
 *                                <-  Sockets, Listeners, Connections, Lock: with a descriptor for each of their items
 *                                <-  Handed: that was all, and the state directory is unlocked
 *     Ready: it could serve now  ->
 *                                <-  Released: it has closed all that; or Aborted: it resumes serving
 *
 * From `Accepted` on each sends `Busy` every second, so that the other notices if it hangs.
 *
 * Either may end or hang instead. Until `Ready` the predecessor resumes serving. From `Handed` on the successor
 * continues alone if the predecessor has ended, and from `Ready` on if it hangs. A hanging process is killed before
 * the other continues, and both respect the lock on the state directory: they never serve at once.
 */
import { Result, Schema } from "effect"
import { Protocol } from "../../src/protocol/Protocol.ts"

export const handoverVersion = 2

/** Why a handover failed. */
export class HandoverError extends Schema.TaggedError<HandoverError>()("HandoverError", {
  message: Schema.String
}) {}

export const handoverFailed = (message: string): HandoverError => new HandoverError({ message })

const Item = {
  /** A reserved socket: an address in its canonical form, with its zone. */
  Socket: Schema.Struct({ protocol: Protocol, host: Schema.String, port: Schema.Int }),
  /** A listening socket of the plugin. See `ListenerHandoff` for places and details. */
  Listener: Schema.Struct({
    place: Schema.String,
    inode: Schema.optionalKey(Schema.Int),
    port: Schema.optionalKey(Schema.Int),
    spec: Schema.optionalKey(Schema.Struct({ path: Schema.String, content: Schema.String }))
  }),
  /** An idle connection of one of its clients. */
  Connection: Schema.Struct({ place: Schema.String, session: Schema.optionalKey(Schema.String) })
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

/** The message if it is of an expected kind; otherwise a description of what came. */
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

/** Both processes must speak the same version; otherwise the old one must be stopped and the new one started. */
export const versionRefusal = (asked: number, pid: number): string | undefined =>
  asked === handoverVersion
    ? undefined
    : `process ${pid} hands over by version ${handoverVersion}, and was asked by version ${asked}; stop it, then start this one`

/**
 * Dumps of tables so large that they keep the kernel busy for long: conntrack's takes 65 ms with 200,000 flows, and
 * 5 ms with none. They run in another thread, on their own socket, and are read part by part between other work.
 */
import { Effect, Result, type Scope, Semaphore } from "effect"
import * as C from "../Libc.ts"
import { bindAddress, type Request } from "./Netlink.ts"
import {
  errnoOf,
  type Message,
  MessageWriter,
  NLM_F_DUMP,
  NLMSG_DONE,
  NLMSG_ERROR,
  readMessages
} from "./NetlinkMessage.ts"

/** Calls back for each object of a kind; a message is valid until the callback returns. One dump at a time. */
export type NetlinkDump = (
  request: Request,
  visit: (message: Message) => void
) => Effect.Effect<void, C.Errno>

/** Larger than any part of a dump that the kernel sends. */
const datagramLength = 1 << 16
const addressLength = 12

export const openDump = Effect.fnUntraced(function* (
  libc: C.Libc,
  protocol: number
): Effect.fn.Return<NetlinkDump, C.Errno, Scope.Scope> {
  const fd = yield* Effect.acquireRelease(
    Effect.suspend(() => {
      const opened = libc.socket(C.AF_NETLINK, C.SOCK_RAW | C.SOCK_CLOEXEC | C.SOCK_NONBLOCK, protocol)
      return opened < 0 ? Effect.fail(libc.errno("socket", opened)) : Effect.succeed(opened)
    }),
    (opened) => Effect.sync(() => void libc.close(opened))
  )
  const bound = bindAddress(libc, fd)
  if (bound < 0) return yield* libc.errno("bind", bound)
  const permits = yield* Semaphore.make(1)
  const writer = new MessageWriter()
  const incoming = new Uint8Array(datagramLength)
  const sender = new Uint8Array(addressLength)
  /** The kernel writes the same number back: every netlink address has this size. */
  const senderLength = C.int32(addressLength)
  let sequence = 0

  const receive = () => {
    const flags = C.MSG_DONTWAIT | C.MSG_TRUNC
    return libc.recvfromLater(fd, incoming, datagramLength, flags, sender, senderLength)
  }

  const dumpOnce = async (
    { subsystem, type, family, write }: Request,
    visit: (message: Message) => void
  ): Promise<Result.Result<void, C.Errno>> => {
    sequence = (sequence + 1) >>> 0
    writer.clear()
    writer.begin((subsystem << 8) | type, NLM_F_DUMP, sequence, family)
    write(writer)
    writer.end()
    // The kernel makes the first part during the send, and the next one whenever a part is read.
    const sent = await libc.sendLater(fd, writer.bytes, writer.length, 0)
    if (sent < 0) return Result.fail(libc.errno("send", sent))
    for (;;) {
      const length = await receive()
      if (length === -C.EINTR) continue
      if (length < 0) return Result.fail(libc.errno("recv", length))
      if (length > datagramLength) return Result.fail(libc.errno("recv", -C.EMSGSIZE))
      if (new DataView(sender.buffer).getUint32(4, C.hostLittleEndian) !== 0) continue
      for (const message of readMessages(incoming.subarray(0, length))) {
        if (message.portId !== bound || message.sequence !== sequence) continue
        if (message.type !== NLMSG_DONE && message.type !== NLMSG_ERROR) visit(message)
        else {
          const errno = errnoOf(message)
          return errno === 0 ? Result.void : Result.fail(libc.errno("dump", -errno))
        }
      }
    }
  }

  /** A dump continues after a failed read, and blocks the next one until it has been read to its end. */
  const dump = async (
    request: Request,
    visit: (message: Message) => void
  ): Promise<Result.Result<void, C.Errno>> => {
    const outcome = await dumpOnce(request, visit)
    if (Result.isSuccess(outcome) || outcome.failure.errno !== C.EBUSY) return outcome
    while ((await receive()) >= 0);
    return dumpOnce(request, visit)
  }

  // A dump left half read would block the next one.
  return (request, visit) =>
    permits.withPermit(
      Effect.uninterruptible(
        Effect.flatMap(
          Effect.promise(() => dump(request, visit)),
          Effect.fromResult
        )
      )
    )
})

/**
 * A netlink socket kept open: transactions (nfnetlink batches), requests, dumps, and multicast events.
 *
 * No call here blocks. The kernel processes a message during the send, so every answer is in the socket's buffer
 * when the call returns, and the kernel makes the next part of a dump during the read of the last one.
 * Sources: netlink(7), net/netfilter/nfnetlink.c.
 */
import { Effect, Result, type Scope } from "effect"
import * as C from "../Libc.ts"
import {
  errnoOf,
  type Message,
  MessageWriter,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  readMessages
} from "./NetlinkMessage.ts"

export const NETLINK_ROUTE = 0
export const NETLINK_NETFILTER = 12

/** A message of a batch or a series that the kernel refused, counted from 0; -1 is the whole batch. */
export interface Refusal {
  readonly index: number
  readonly errno: number
}

/** Adds the messages of a batch; they are numbered in the order of `begin`. */
export interface Batch {
  readonly writer: MessageWriter
  /** Begins a message of the batch's subsystem, whose `type` is the lower byte. End it by `writer.end()`. */
  readonly begin: (type: number, flags: number, family: number) => void
}

export interface Request {
  readonly subsystem: number
  readonly type: number
  readonly family: number
  /** Adds the attributes. */
  readonly write: (writer: MessageWriter) => void
}

export interface Netlink {
  readonly fd: number
  /** What the kernel calls this socket: events name the socket that caused them. */
  readonly portId: number
  /**
   * One transaction: if there are no refusals, the kernel applied all of it; else nothing. The kernel checks every
   * message before it gives up, so each invalid one has its refusal. A failure means the send failed and nothing
   * was applied.
   */
  readonly batch: (
    subsystem: number,
    write: (batch: Batch) => void
  ) => Result.Result<ReadonlyArray<Refusal>, C.Errno>
  /** Sends messages one after the other; the kernel applies or refuses each on its own. */
  readonly series: (
    subsystem: number,
    write: (series: Batch) => void
  ) => Result.Result<ReadonlyArray<Refusal>, C.Errno>
  /** The answer to a request for one object. */
  readonly get: (request: Request) => Result.Result<Message, C.Errno>
  /** All objects of a kind at one moment: a dump that a change interrupted is repeated. */
  readonly dump: (request: Request) => Result.Result<ReadonlyArray<Message>, C.Errno>
  /** Joins a multicast group, whose messages `receive` then returns. Use a separate socket for events. */
  readonly subscribe: (group: number) => Result.Result<void, C.Errno>
  /** The messages that have arrived, without waiting. `ENOBUFS`: events were lost. */
  readonly receive: () => Result.Result<ReadonlyArray<Message>, C.Errno>
  readonly close: () => void
}

const NETLINK_ADD_MEMBERSHIP = 1
const NETLINK_CAP_ACK = 10
const NETLINK_GET_STRICT_CHK = 12
const SUBSYSTEM_NONE = 0

/** Limits, not reservations: room for a refusal of each of some ten thousand messages. */
const receiveBuffer = 16 << 20
const sendBuffer = 1 << 20
/** Larger than any datagram that netlink sends. */
const datagramLength = 1 << 16
const dumpAttempts = 20
/** Sequence numbers are 32 bits wide; a batch that starts here never reaches the end. */
const lastSequence = 0xf0000000

/**
 * Uses a new socket, or one inherited from another process, which must not use it meanwhile: call `receive` first
 * to drain what it left unread.
 */
export const openNetlink = (
  libc: C.Libc,
  protocol: number,
  inherited?: number
): Result.Result<Netlink, C.Errno> => {
  const fd = inherited ?? libc.socket(C.AF_NETLINK, C.SOCK_RAW | C.SOCK_CLOEXEC | C.SOCK_NONBLOCK, protocol)
  if (fd < 0) return Result.fail(libc.errno("socket", fd))

  const setNumber = (level: number, name: number, value: number): number =>
    libc.setsockopt(fd, level, name, C.int32(value), 4)
  /** Ignores the host's limit where this process may; else the kernel caps the size at it. */
  const setBuffer = (forced: number, usual: number, length: number) => {
    if (setNumber(C.SOL_SOCKET, forced, length) < 0) setNumber(C.SOL_SOCKET, usual, length)
  }
  setBuffer(C.SO_RCVBUFFORCE, C.SO_RCVBUF, receiveBuffer)
  setBuffer(C.SO_SNDBUFFORCE, C.SO_SNDBUF, sendBuffer)
  setNumber(C.SOL_NETLINK, NETLINK_CAP_ACK, 1)
  setNumber(C.SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

  const portId = inherited === undefined ? bindAddress(libc, fd) : portIdOf(libc, fd)
  if (portId < 0) {
    libc.close(fd)
    return Result.fail(libc.errno("bind", portId))
  }

  const writer = new MessageWriter()
  const incoming = new Uint8Array(datagramLength)
  const sender = new Uint8Array(sizeOfAddress)
  const senderView = new DataView(sender.buffer)
  /** The kernel writes the same number back: every netlink address has this size. */
  const senderLength = C.int32(sizeOfAddress)
  let sequence = 1
  let sendable = sendBuffer

  const send = (): number => {
    if (writer.length > sendable) {
      sendable = writer.length * 2
      setBuffer(C.SO_SNDBUFFORCE, C.SO_SNDBUF, sendable)
    }
    for (;;) {
      const result = libc.send(fd, writer.bytes, writer.length, 0)
      if (result !== -C.EINTR) return result
    }
  }

  /** The next datagram from the kernel, valid until the next call; or a negated `errno`. */
  const receiveDatagram = (): Uint8Array | number => {
    for (;;) {
      const flags = C.MSG_DONTWAIT | C.MSG_TRUNC
      const length = libc.recvfrom(fd, incoming, datagramLength, flags, sender, senderLength)
      if (length === -C.EINTR) continue
      if (length < 0) return length
      if (length > datagramLength) return -C.EMSGSIZE
      if (senderView.getUint32(4, C.hostLittleEndian) === 0) return incoming.subarray(0, length)
    }
  }

  /**
   * Calls back for each answer to the messages numbered from `first` on, until `visit` returns true or there are no
   * more.
   */
  const answers = (first: number, last: number, visit: (message: Message) => boolean): number => {
    for (;;) {
      const datagram = receiveDatagram()
      if (typeof datagram === "number") return datagram
      for (const message of readMessages(datagram)) {
        const ours = message.portId === portId && message.sequence >= first && message.sequence <= last
        if (ours && visit(message)) return 0
      }
    }
  }

  const batch: Netlink["batch"] = (subsystem, write) => {
    if (sequence > lastSequence) sequence = 1
    writer.clear()
    writer.begin(NFNL_MSG_BATCH_BEGIN, 0, sequence++, 0, subsystem)
    writer.end()
    const first = sequence
    write(messages(subsystem))
    const last = sequence - 1
    writer.flagLast(NLM_F_ACK)
    writer.begin(NFNL_MSG_BATCH_END, 0, sequence++, 0, subsystem)
    writer.end()
    return refusals(first - 1, first, last)
  }

  const series: Netlink["series"] = (subsystem, write) => {
    if (sequence > lastSequence) sequence = 1
    writer.clear()
    const first = sequence
    write(messages(subsystem))
    if (sequence === first) return Result.succeed([])
    writer.flagLast(NLM_F_ACK)
    return refusals(first, first, sequence - 1)
  }

  const messages = (subsystem: number): Batch => ({
    writer,
    begin: (type, flags, family) => writer.begin((subsystem << 8) | type, flags, sequence++, family)
  })

  /**
   * Sends the written messages, and returns the answers to those from `earliest` on, `first` being number 0. Only
   * the last message requests an acknowledgement, which therefore comes last; the others are answered only if
   * refused.
   */
  const refusals = (
    earliest: number,
    first: number,
    last: number
  ): Result.Result<ReadonlyArray<Refusal>, C.Errno> => {
    const sent = send()
    if (sent < 0) return Result.fail(libc.errno("send", sent))
    const refused: Array<Refusal> = []
    let acknowledged = false
    const result = answers(earliest, last + 1, (message) => {
      if (message.type !== NLMSG_ERROR) return false
      const errno = errnoOf(message)
      if (errno !== 0) refused.push({ index: message.sequence - first, errno })
      acknowledged = message.sequence === last
      return acknowledged
    })
    if (!acknowledged && refused.length === 0)
      refused.push({ index: -1, errno: result === -C.EAGAIN ? C.ENOBUFS : -result })
    return Result.succeed(refused)
  }

  const request = (flags: number, { subsystem, type, family, write }: Request): number => {
    if (sequence > lastSequence) sequence = 1
    const number = sequence++
    writer.clear()
    writer.begin((subsystem << 8) | type, flags, number, family, SUBSYSTEM_NONE)
    write(writer)
    writer.end()
    const sent = send()
    return sent < 0 ? sent : number
  }

  const get: Netlink["get"] = (asked) => {
    const number = request(0, asked)
    if (number < 0) return Result.fail(libc.errno("send", number))
    let answer: Message | undefined
    const result = answers(number, number, (message) => {
      answer = copyOf(message)
      return true
    })
    if (answer === undefined) return Result.fail(libc.errno("recv", result))
    const errno = answer.type === NLMSG_ERROR ? errnoOf(answer) : 0
    return errno === 0 ? Result.succeed(answer) : Result.fail(libc.errno("request", -errno))
  }

  const dumpOnce = (asked: Request): ReadonlyArray<Message> | number => {
    const number = request(NLM_F_DUMP, asked)
    if (number < 0) return number
    const parts: Array<Message> = []
    let errno = 0
    let interrupted = false
    const result = answers(number, number, (message) => {
      if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true
      if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
        errno = errnoOf(message)
        return true
      }
      parts.push(copyOf(message))
      return false
    })
    if (result < 0) return result
    if (errno !== 0) return -errno
    return interrupted ? -C.EINTR : parts
  }

  /** A dump continues after a failed read, and blocks the next one until it has been read to its end. */
  const readToEnd = (): void => {
    while (typeof receiveDatagram() !== "number");
  }

  const dump: Netlink["dump"] = (asked) => {
    let outcome = dumpOnce(asked)
    for (let attempt = 1; attempt < dumpAttempts; attempt++) {
      if (outcome !== -C.EINTR && outcome !== -C.EBUSY) break
      if (outcome === -C.EBUSY) readToEnd()
      outcome = dumpOnce(asked)
    }
    return typeof outcome === "number" ? Result.fail(libc.errno("dump", outcome)) : Result.succeed(outcome)
  }

  const subscribe: Netlink["subscribe"] = (group) => {
    const result = setNumber(C.SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    return result < 0 ? Result.fail(libc.errno("setsockopt", result)) : Result.void
  }

  const receive: Netlink["receive"] = () => {
    const messages: Array<Message> = []
    for (;;) {
      const datagram = receiveDatagram()
      if (datagram === -C.EAGAIN) return Result.succeed(messages)
      if (typeof datagram === "number") return Result.fail(libc.errno("recv", datagram))
      for (const message of readMessages(datagram)) messages.push(copyOf(message))
    }
  }

  return Result.succeed({
    fd,
    portId,
    batch,
    series,
    get,
    dump,
    subscribe,
    receive,
    close: () => void libc.close(fd)
  })
}

/** Closed with the scope. */
export const scopedNetlink = (libc: C.Libc, protocol: number): Effect.Effect<Netlink, C.Errno, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => Effect.fromResult(openNetlink(libc, protocol))),
    ({ close }) => Effect.sync(close)
  )

const copyOf = (message: Message): Message => ({ ...message, body: message.body.slice() })

/** struct sockaddr_nl: family, port id, groups. */
const sizeOfAddress = 12

/** Binds to an address that the kernel picks; its port id, or a negated `errno`. */
export const bindAddress = (libc: C.Libc, fd: number): number => {
  const address = new Uint8Array(sizeOfAddress)
  new DataView(address.buffer).setUint16(0, C.AF_NETLINK, C.hostLittleEndian)
  const bound = libc.bind(fd, address, sizeOfAddress)
  return bound < 0 ? bound : portIdOf(libc, fd)
}

const portIdOf = (libc: C.Libc, fd: number): number => {
  const address = new Uint8Array(sizeOfAddress)
  const named = libc.getsockname(fd, address, C.int32(sizeOfAddress))
  return named < 0 ? named : new DataView(address.buffer).getUint32(4, C.hostLittleEndian)
}

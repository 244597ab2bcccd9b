/**
 * Netlink messages as bytes: this file writes and reads them, but never sends. Headers and lengths are in the
 * host's byte order, netfilter's payloads in network order; everything is aligned to four bytes.
 * Sources: netlink(7), include/uapi/linux/netlink.h and netfilter/nfnetlink.h.
 */
import { hostLittleEndian } from "../Libc.ts"

export const NLM_F_REQUEST = 0x1
export const NLM_F_ACK = 0x4
export const NLM_F_DUMP_INTR = 0x10
export const NLM_F_DUMP = 0x300
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
export const NFNL_MSG_BATCH_BEGIN = 0x10
export const NFNL_MSG_BATCH_END = 0x11

/** struct nlmsghdr, and struct nfgenmsg behind it. */
export const headerLength = 16
export const netfilterHeaderLength = 4
const attributeHeaderLength = 4
const nested = 0x8000
const typeMask = 0x3fff

const text = new TextEncoder()
const aligned = (length: number): number => (length + 3) & ~3

/** Consecutive messages, in a buffer that grows and is reused. */
export class MessageWriter {
  bytes = new Uint8Array(4096)
  length = 0
  private view = new DataView(this.bytes.buffer)
  private message = 0
  private readonly texts = new Map<string, Uint8Array>()

  clear(): void {
    this.length = 0
  }

  /** A message of a netfilter subsystem; `type` holds the subsystem in its upper byte. */
  begin(type: number, flags: number, sequence: number, family: number, resource = 0): void {
    this.reserve(headerLength + netfilterHeaderLength)
    const at = this.length
    this.message = at
    this.view.setUint16(at + 4, type, hostLittleEndian)
    this.view.setUint16(at + 6, flags | NLM_F_REQUEST, hostLittleEndian)
    this.view.setUint32(at + 8, sequence, hostLittleEndian)
    this.view.setUint32(at + 12, 0, hostLittleEndian)
    this.view.setUint8(at + 16, family)
    this.view.setUint8(at + 17, 0)
    this.view.setUint16(at + 18, resource)
    this.length = at + headerLength + netfilterHeaderLength
  }

  end(): void {
    this.view.setUint32(this.message, this.length - this.message, hostLittleEndian)
  }

  /** Adds a flag to the message that was ended last. */
  flagLast(flag: number): void {
    const at = this.message + 6
    this.view.setUint16(at, this.view.getUint16(at, hostLittleEndian) | flag, hostLittleEndian)
  }

  attribute(type: number, payload: Uint8Array): void {
    const at = this.attributeHeader(type, payload.length)
    this.bytes.set(payload, at)
  }

  uint32(type: number, value: number): void {
    const at = this.attributeHeader(type, 4)
    this.view.setUint32(at, value)
  }

  uint64(type: number, value: number): void {
    const at = this.attributeHeader(type, 8)
    this.view.setBigUint64(at, BigInt(value))
  }

  /** A number in the host's byte order, which the kernel's own masks use. */
  hostUint32(type: number, value: number): void {
    const at = this.attributeHeader(type, 4)
    this.view.setUint32(at, value, hostLittleEndian)
  }

  uint16(type: number, value: number): void {
    const at = this.attributeHeader(type, 2)
    this.view.setUint16(at, value)
  }

  uint8(type: number, value: number): void {
    const at = this.attributeHeader(type, 1)
    this.view.setUint8(at, value)
  }

  /**
   * The rest of a header that is longer than netfilter's, or attributes with their headers; a multiple of four
   * bytes.
   */
  append(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.bytes.set(bytes, this.length)
    this.length += bytes.length
  }

  /** The text's bytes and a zero byte. Texts are our own names, of which there are few. */
  string(type: number, value: string): void {
    let bytes = this.texts.get(value)
    if (bytes === undefined) {
      bytes = text.encode(`${value}\0`)
      this.texts.set(value, bytes)
    }
    this.attribute(type, bytes)
  }

  /** Opens a nested attribute; pass the result to `endNested`. */
  beginNested(type: number): number {
    return this.attributeHeader(type | nested, 0) - attributeHeaderLength
  }

  endNested(start: number): void {
    this.view.setUint16(start, this.length - start, hostLittleEndian)
  }

  /** The offset of the payload, behind its header; pads with zeros up to the next multiple of four. */
  private attributeHeader(type: number, length: number): number {
    this.reserve(attributeHeaderLength + aligned(length))
    const at = this.length
    const payload = at + attributeHeaderLength
    this.view.setUint16(at, attributeHeaderLength + length, hostLittleEndian)
    this.view.setUint16(at + 2, type, hostLittleEndian)
    this.length = payload + aligned(length)
    if (length % 4 !== 0) this.bytes.fill(0, payload + length, this.length)
    return payload
  }

  private reserve(more: number): void {
    if (this.length + more <= this.bytes.length) return
    const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.length + more))
    grown.set(this.bytes)
    this.bytes = grown
    this.view = new DataView(grown.buffer)
  }
}

/** `body` is everything behind the netlink header. */
export interface Message {
  readonly type: number
  readonly flags: number
  readonly sequence: number
  readonly portId: number
  readonly body: Uint8Array
}

/** The messages of one datagram; stops at a truncated message. */
export function* readMessages(bytes: Uint8Array): Generator<Message> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at + headerLength <= bytes.length; ) {
    const length = view.getUint32(at, hostLittleEndian)
    if (length < headerLength || at + length > bytes.length) return
    yield {
      type: view.getUint16(at + 4, hostLittleEndian),
      flags: view.getUint16(at + 6, hostLittleEndian),
      sequence: view.getUint32(at + 8, hostLittleEndian),
      portId: view.getUint32(at + 12, hostLittleEndian),
      body: bytes.subarray(at + headerLength, at + length)
    }
    at += aligned(length)
  }
}

/** The `errno` of an NLMSG_ERROR or NLMSG_DONE, 0 for success. */
export const errnoOf = ({ body }: Message): number =>
  body.length < 4 ? 0 : -new DataView(body.buffer, body.byteOffset, 4).getInt32(0, hostLittleEndian)

/** Calls back for each attribute of `bytes` from `offset` on; stops at a malformed one. */
export const eachAttribute = (
  bytes: Uint8Array,
  offset: number,
  visit: (type: number, payload: Uint8Array) => void
): void => {
  for (let at = offset, length = 0; at + attributeHeaderLength <= bytes.length; at += aligned(length)) {
    length = uint16(bytes, at)
    if (length < attributeHeaderLength || at + length > bytes.length) return
    visit(uint16(bytes, at + 2) & typeMask, bytes.subarray(at + attributeHeaderLength, at + length))
  }
}

/** The payload of the first attribute of this type. Makes no view of the others: dumps have many. */
export const findAttribute = (bytes: Uint8Array, offset: number, type: number): Uint8Array | undefined => {
  for (let at = offset, length = 0; at + attributeHeaderLength <= bytes.length; at += aligned(length)) {
    length = uint16(bytes, at)
    if (length < attributeHeaderLength || at + length > bytes.length) return undefined
    if ((uint16(bytes, at + 2) & typeMask) === type)
      return bytes.subarray(at + attributeHeaderLength, at + length)
  }
  return undefined
}

/** In the host's byte order. */
const uint16 = (bytes: Uint8Array, at: number): number => {
  const [first = 0, second = 0] = [bytes[at], bytes[at + 1]]
  return hostLittleEndian ? first | (second << 8) : (first << 8) | second
}

/** The payload of an attribute within nested attributes. */
export const findNested = (
  bytes: Uint8Array,
  ...path: readonly [type: number, ...types: ReadonlyArray<number>]
): Uint8Array | undefined => {
  let at: Uint8Array | undefined = bytes
  for (const type of path) at = at === undefined ? undefined : findAttribute(at, 0, type)
  return at
}

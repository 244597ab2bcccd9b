/**
 * The ctnetlink messages that find flows and delete them (include/uapi/linux/netfilter/nfnetlink_conntrack.h). The
 * kernel filters dumps by tuple since 5.8 and by status since 5.15; an older one returns more, so the caller
 * filters again.
 */
import { AF_INET, AF_INET6 } from "../Libc.ts"
import type { Batch, Request } from "../netlink/Netlink.ts"
import {
  eachAttribute,
  type Message,
  type MessageWriter,
  netfilterHeaderLength
} from "../netlink/NetlinkMessage.ts"

export const NFNL_SUBSYS_CTNETLINK = 1
export const NFNLGRP_CONNTRACK_DESTROY = 3
const IPCTNL_MSG_CT_GET = 1
const IPCTNL_MSG_CT_DELETE = 2

const NFPROTO_UNSPEC = 0
export const NFPROTO_IPV4 = AF_INET
/** The kernel uses the numbers of address families for the families of flows. */
export const flowFamily = { 4: NFPROTO_IPV4, 6: AF_INET6 } as const

export const IPS_SEEN_REPLY = 1 << 1
export const IPS_DST_NAT = 1 << 5

export const CTA_STATUS = 3
const CTA_PROTOINFO = 4
const CTA_PROTOINFO_TCP = 1
const CTA_PROTOINFO_TCP_STATE = 1
const CTA_TUPLE_ORIG = 1
const CTA_TUPLE_REPLY = 2
const CTA_COUNTERS_ORIG = 9
const CTA_COUNTERS_REPLY = 10
const CTA_ID = 12
const CTA_ZONE = 18
const CTA_FILTER = 25
const CTA_STATUS_MASK = 26
const CTA_TUPLE_IP = 1
const CTA_TUPLE_PROTO = 2
const CTA_IP_V4_SRC = 1
const CTA_IP_V4_DST = 2
const CTA_IP_V6_SRC = 3
const CTA_IP_V6_DST = 4
const CTA_PROTO_NUM = 1
const CTA_PROTO_SRC_PORT = 2
const CTA_PROTO_DST_PORT = 3
const CTA_COUNTERS_BYTES = 2
const CTA_FILTER_ORIG_FLAGS = 1
const CTA_FILTER_REPLY_FLAGS = 2
const CTA_FILTER_F_IP_SRC = 1 << 0
const CTA_FILTER_F_IP_DST = 1 << 1
const CTA_FILTER_F_PROTO_NUM = 1 << 3
const CTA_FILTER_F_PROTO_DST_PORT = 1 << 5

export interface Tuple {
  source: Uint8Array
  destination: Uint8Array
  /** An IANA number. */
  protocol: number
  sourcePort: number
  destinationPort: number
}

/** A flow's original tuple, and the reply tuple that the kernel expects: after a redirection, from the backend. */
export interface Flow {
  readonly family: number
  readonly original: Tuple
  readonly reply: Tuple
  readonly status: number
  readonly id: number
  /** Whether both ends of a TCP connection have closed it. */
  readonly isClosed: boolean
  /** Whether an end of a TCP connection has reset it. */
  readonly isReset: boolean
  /** Both are 0 where the kernel's accounting is off. */
  readonly bytesIn: number
  readonly bytesOut: number
}

/** The flows of a family to a port, or with any port of a protocol, and to one address of IPv4 or to any. */
export const flowsTo = (
  family: number,
  protocol: number,
  port: number | undefined,
  destination: Uint8Array | undefined
): Request =>
  flowsLike(family, CTA_TUPLE_ORIG, {
    protocol,
    port,
    address: destination && { type: CTA_IP_V4_DST, flag: CTA_FILTER_F_IP_DST, octets: destination }
  })

/** The flows of a protocol that this address of IPv4, or any of IPv6, answers. */
export const flowsAnsweredBy = (family: number, protocol: number, source: Uint8Array): Request =>
  flowsLike(family, CTA_TUPLE_REPLY, {
    protocol,
    address: { type: CTA_IP_V4_SRC, flag: CTA_FILTER_F_IP_SRC, octets: source }
  })

/** What is compared of a flow's tuple; `port` is the destination's. */
interface Wanted {
  readonly protocol: number
  readonly port?: number | undefined
  readonly address: { readonly type: number; readonly flag: number; readonly octets: Uint8Array } | undefined
}

/** The flows with such a tuple of this direction. */
const flowsLike = (
  family: number,
  direction: typeof CTA_TUPLE_ORIG | typeof CTA_TUPLE_REPLY,
  wanted: Wanted
): Request => ({
  subsystem: NFNL_SUBSYS_CTNETLINK,
  type: IPCTNL_MSG_CT_GET,
  family,
  write: (writer) => {
    const { protocol, port } = wanted
    // The kernel's filter leaves out just the IPv6 flows with the address: `!ipv6_addr_cmp` in ctnetlink_filter_match_tuple.
    const address = family === NFPROTO_IPV4 ? wanted.address : undefined
    const tuple = writer.beginNested(direction)
    if (address !== undefined) {
      const ip = writer.beginNested(CTA_TUPLE_IP)
      writer.attribute(address.type, address.octets)
      writer.endNested(ip)
    }
    const proto = writer.beginNested(CTA_TUPLE_PROTO)
    writer.uint8(CTA_PROTO_NUM, protocol)
    if (port !== undefined) writer.uint16(CTA_PROTO_DST_PORT, port)
    writer.endNested(proto)
    writer.endNested(tuple)
    const flags =
      CTA_FILTER_F_PROTO_NUM | (port === undefined ? 0 : CTA_FILTER_F_PROTO_DST_PORT) | (address?.flag ?? 0)
    const filter = writer.beginNested(CTA_FILTER)
    writer.hostUint32(CTA_FILTER_ORIG_FLAGS, direction === CTA_TUPLE_ORIG ? flags : 0)
    writer.hostUint32(CTA_FILTER_REPLY_FLAGS, direction === CTA_TUPLE_REPLY ? flags : 0)
    writer.endNested(filter)
  }
})

/** The flows of both families whose status, masked, equals these bits. */
export const flowsOfStatus = (status: number, mask: number): Request => ({
  subsystem: NFNL_SUBSYS_CTNETLINK,
  type: IPCTNL_MSG_CT_GET,
  family: NFPROTO_UNSPEC,
  write: (writer) => {
    writer.uint32(CTA_STATUS, status)
    writer.uint32(CTA_STATUS_MASK, mask)
  }
})

/** `undefined` for a flow without ports. Addresses are views of the message. */
export const readFlow = ({ body }: Message): Flow | undefined => {
  const original = emptyTuple()
  const reply = emptyTuple()
  let status = 0
  let id = 0
  let tcpState = 0
  let bytesIn = 0
  let bytesOut = 0
  eachAttribute(body, netfilterHeaderLength, (type, payload) => {
    if (type === CTA_TUPLE_ORIG) readTuple(payload, original)
    else if (type === CTA_TUPLE_REPLY) readTuple(payload, reply)
    else if (type === CTA_STATUS) status = uint32(payload)
    else if (type === CTA_ID) id = uint32(payload)
    else if (type === CTA_PROTOINFO) tcpState = readTcpState(payload)
    else if (type === CTA_COUNTERS_ORIG) bytesIn = readBytes(payload)
    else if (type === CTA_COUNTERS_REPLY) bytesOut = readBytes(payload)
  })
  return original.destinationPort < 0
    ? undefined
    : {
        family: body[0] ?? 0,
        original,
        reply,
        status,
        id,
        isClosed: tcpState >= TCP_CONNTRACK_LAST_ACK,
        isReset: tcpState === TCP_CONNTRACK_CLOSE,
        bytesIn,
        bytesOut
      }
}

/**
 * What identifies a flow to the kernel: its tuple, its zone, and the id that distinguishes it from a later flow of
 * the same tuple.
 */
export interface FlowName {
  readonly family: number
  readonly attributes: ReadonlyArray<readonly [type: number, payload: Uint8Array]>
}

export const nameOf = ({ body }: Message): FlowName => {
  const attributes: Array<readonly [number, Uint8Array]> = []
  eachAttribute(body, netfilterHeaderLength, (type, payload) => {
    if (type === CTA_TUPLE_ORIG || type === CTA_ID || type === CTA_ZONE)
      attributes.push([type, payload.slice()])
  })
  return { family: body[0] ?? 0, attributes }
}

export const writeDelete = ({ writer, begin }: Batch, { family, attributes }: FlowName): void => {
  begin(IPCTNL_MSG_CT_DELETE, 0, family)
  for (const [type, payload] of attributes) writeNamed(writer, type, payload)
  writer.end()
}

/** The tuple's payload consists of attributes already, so it goes into a nested one. */
const writeNamed = (writer: MessageWriter, type: number, payload: Uint8Array) => {
  if (type !== CTA_TUPLE_ORIG) return writer.attribute(type, payload)
  const start = writer.beginNested(type)
  writer.append(payload)
  writer.endNested(start)
}

const none = new Uint8Array()

const emptyTuple = (): Tuple => ({
  source: none,
  destination: none,
  protocol: 0,
  sourcePort: -1,
  destinationPort: -1
})

const readTuple = (bytes: Uint8Array, tuple: Tuple) =>
  eachAttribute(bytes, 0, (type, payload) => {
    if (type === CTA_TUPLE_IP)
      eachAttribute(payload, 0, (part, address) => {
        if (part === CTA_IP_V4_SRC || part === CTA_IP_V6_SRC) tuple.source = address
        if (part === CTA_IP_V4_DST || part === CTA_IP_V6_DST) tuple.destination = address
      })
    if (type === CTA_TUPLE_PROTO)
      eachAttribute(payload, 0, (part, value) => {
        if (part === CTA_PROTO_NUM) tuple.protocol = value[0] ?? 0
        if (part === CTA_PROTO_SRC_PORT) tuple.sourcePort = uint16(value)
        if (part === CTA_PROTO_DST_PORT) tuple.destinationPort = uint16(value)
      })
  })

/** From here on, both ends have closed: LAST_ACK, TIME_WAIT, CLOSE (nf_conntrack_tcp.h). */
const TCP_CONNTRACK_LAST_ACK = 6
const TCP_CONNTRACK_CLOSE = 8

/** 0 for another protocol. */
const readTcpState = (bytes: Uint8Array): number => {
  let state = 0
  eachAttribute(bytes, 0, (type, payload) => {
    if (type === CTA_PROTOINFO_TCP)
      eachAttribute(payload, 0, (part, value) => {
        if (part === CTA_PROTOINFO_TCP_STATE) state = value[0] ?? 0
      })
  })
  return state
}

const readBytes = (bytes: Uint8Array): number => {
  let count = 0
  eachAttribute(bytes, 0, (type, payload) => {
    if (type === CTA_COUNTERS_BYTES) count = uint32(payload) * 2 ** 32 + uint32(payload.subarray(4))
  })
  return count
}

const uint16 = (bytes: Uint8Array): number => ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)

const uint32 = (bytes: Uint8Array): number =>
  (((bytes[0] ?? 0) << 24) | ((bytes[1] ?? 0) << 16) | ((bytes[2] ?? 0) << 8) | (bytes[3] ?? 0)) >>> 0

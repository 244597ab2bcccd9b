// biome-ignore-all lint/style/noNonNullAssertion: an index is within its buffer
/**
 * Reports to a client that the backend refused its datagram: an ICMP port unreachable (RFC 792; RFC 4443, section
 * 3.1). The kernel sends one by itself only where no socket has the port, and no socket option makes it send one, so
 * this takes a raw socket and with it CAP_NET_RAW. Without that the client waits for its own timeout.
 */
import * as S from "../../linux/Syscalls.ts"
import { kindOf } from "../ThreadMessages.ts"
import { adopt } from "./Epoll.ts"
import { memory } from "./Memory.ts"
import { nameBytes, readOwnName } from "./SocketNames.ts"
import * as Send from "./UdpBatch.ts"
import { key } from "./UdpFlows.ts"

const sizeOfIcmp = 8
const sizeOfUdp = 8
/** ICMP, then the quoted datagram: an IP header of either family, and the UDP header. */
const message = memory(sizeOfIcmp + 40 + sizeOfUdp)
const bytes = new Uint8Array(message.buffer)
const view = new DataView(message.buffer)
/** The words of the key that is refused: the client's address and the one that it sent to, with the client's port. */
let keyBytes = new Uint8Array(0)
/** Every bit is a type of message that the socket does not receive. */
const nothing = memory(32)
new Uint8Array(nothing.buffer).fill(0xff)

/** The raw socket of each family; -1 where the system allows none. */
const sockets = new Map<4 | 6, number>()

/** As the kernel does by itself (icmp(7), icmp_msgs_per_sec): packets with forged senders must not make a flood. */
const mostPerSecond = 1000
const allowance = { second: 0, left: mostPerSecond }

/** Whether one more refusal may be reported in this second. */
export const mayRefuse = (now: number): boolean => {
  const second = Math.floor(now / 1000)
  if (second !== allowance.second) Object.assign(allowance, { second, left: mostPerSecond })
  return allowance.left-- > 0
}

/** Reports a refusal to the client of the flow whose key is in `words` at `start`; `Send` must address it. */
export const refuse = (words: Int32Array<ArrayBuffer>, start: number, family: 4 | 6): void => {
  const socket = sockets.get(family) ?? open(family)
  if (socket < 0 || !readOwnName(words[start + key.front]!)) return
  keyBytes = new Uint8Array(words.buffer)
  const length = family === 4 ? write4(start) : write6(start)
  // A raw socket takes a port in the address for a protocol.
  Send.targetWords[0] = Send.targetWords[0]! & 0xffff
  Send.sendBytes(socket, message.address, length)
}

const open = (family: 4 | 6): number => {
  const [domain, protocol] =
    family === 4 ? [S.AF_INET, S.IPPROTO_ICMP] : ([S.AF_INET6, S.IPPROTO_ICMPV6] as const)
  const socket = S.socket(domain, S.SOCK_RAW | S.NONBLOCK_CLOEXEC, protocol)
  const isOpen = socket >= 0 && adopt(socket, kindOf.raw, -1)
  sockets.set(family, isOpen ? socket : -1)
  if (isOpen && family === 4) S.setsockopt(socket, S.SOL_RAW, S.ICMP_FILTER, nothing.address, 4)
  if (isOpen && family === 6) S.setsockopt(socket, S.IPPROTO_ICMPV6, S.ICMP6_FILTER, nothing.address, 32)
  return isOpen ? socket : -1
}

const write4 = (start: number): number => {
  const udp = sizeOfIcmp + 20
  bytes.fill(0)
  view.setUint16(0, 0x0303)
  view.setUint16(sizeOfIcmp, 0x4500)
  view.setUint16(sizeOfIcmp + 2, 20 + sizeOfUdp)
  view.setUint16(sizeOfIcmp + 8, 0x4000 | S.IPPROTO_UDP)
  copyAddresses(start, sizeOfIcmp + 12, 4)
  view.setUint16(sizeOfIcmp + 10, checksum(sizeOfIcmp, udp))
  writeUdp(start, udp)
  view.setUint16(2, checksum(0, udp + sizeOfUdp))
  return udp + sizeOfUdp
}

/** The kernel adds the checksum. */
const write6 = (start: number): number => {
  const udp = sizeOfIcmp + 40
  bytes.fill(0)
  view.setUint16(0, 0x0104)
  view.setUint16(sizeOfIcmp, 0x6000)
  view.setUint16(sizeOfIcmp + 4, sizeOfUdp)
  view.setUint16(sizeOfIcmp + 6, (S.IPPROTO_UDP << 8) | 64)
  copyAddresses(start, sizeOfIcmp + 8, 16)
  writeUdp(start, udp)
  return udp + sizeOfUdp
}

/** The client's, then the one that it sent to: the socket's own unless that is bound to all. */
const copyAddresses = (start: number, at: number, size: 4 | 16): void => {
  const client = (start + key.client) * 4
  const local = (start + key.local) * 4
  bytes.set(keyBytes.subarray(client, client + size), at)
  const isBound = keyBytes.subarray(local, local + size).every((octet) => octet === 0)
  const own = size === 4 ? 4 : 8
  bytes.set(isBound ? nameBytes.subarray(own, own + size) : keyBytes.subarray(local, local + size), at + size)
}

const writeUdp = (start: number, at: number): void => {
  const port = (start + key.port) * 4
  bytes.set(keyBytes.subarray(port, port + 2), at)
  bytes.set(nameBytes.subarray(2, 4), at + 2)
  view.setUint16(at + 4, sizeOfUdp)
}

/** RFC 1071, of an even number of bytes. */
const checksum = (from: number, to: number): number => {
  let sum = 0
  for (let at = from; at < to; at += 2) sum += view.getUint16(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

// biome-ignore-all lint/style/noNonNullAssertion: every packet of a batch has its place in every table
/**
 * The batch of packets in memory, and the sending of any of them: one call sends several packets of one size to one
 * peer, and the kernel splits them (UDP_SEGMENT, udp(7)). No packet is copied here.
 */
import * as S from "../../linux/Syscalls.ts"
import { memory } from "./Memory.ts"

export const batchSize = 64
/** Not a multiple of a page, which spreads small packets over the cache. */
const slotSize = 65536 + 192
const maxSegmented = 65000

/** `struct mmsghdr` in 32-bit words: name, its length, iov, its length, control, its length, flags, bytes received. */
const header = {
  words: 16,
  name: 0,
  nameLength: 2,
  iov: 4,
  iovLength: 6,
  control: 8,
  controlLength: 10,
  received: 14
} as const

/** The receive vector: each packet with its sender and its control message. */
export const sizeOfName = 32
export const sizeOfControl = 128
const headers = memory(batchSize * header.words * 4)
const slots = memory(batchSize * slotSize)
const names = memory(batchSize * sizeOfName)
const controls = memory(batchSize * sizeOfControl)
const vectors = memory(batchSize * 16)
const headerWords = new Int32Array(headers.buffer)
export const nameWords = new Int32Array(names.buffer)
export const controlWords = new Int32Array(controls.buffer)

/** An address as two words in memory. */
const low = (address: number): number => address | 0
const high = (address: number): number => Math.floor(address / 2 ** 32)
const putPointer = (words: Int32Array, at: number, address: number): void => {
  words[at] = low(address)
  words[at + 1] = high(address)
}

const vectorWords = new Int32Array(vectors.buffer)
for (let index = 0; index < batchSize; index++) {
  const at = index * header.words
  putPointer(headerWords, at + header.name, names.address + index * sizeOfName)
  putPointer(headerWords, at + header.iov, vectors.address + index * 16)
  headerWords[at + header.iovLength] = 1
  putPointer(headerWords, at + header.control, controls.address + index * sizeOfControl)
  putPointer(vectorWords, index * 4, slots.address + index * slotSize)
  vectorWords[index * 4 + 2] = 65536
}

/**
 * Receives a batch with this much room for names and control messages; returns the number of packets, negative on
 * failure.
 */
export const receive = (fd: number, nameLength: number, controlLength: number): number => {
  for (let at = 0; at < headerWords.length; at += header.words) {
    headerWords[at + header.nameLength] = nameLength
    headerWords[at + header.controlLength] = controlLength
  }
  return S.recvmmsg(fd, headers.address, batchSize, S.MSG_DONTWAIT, 0)
}

const sizeOf = (packet: number): number => headerWords[packet * header.words + header.received]!
export const packetBytes = (packet: number): Uint8Array =>
  new Uint8Array(slots.buffer, packet * slotSize, sizeOf(packet))
export const controlLengthOf = (packet: number): number =>
  headerWords[packet * header.words + header.controlLength]!

/** The send vector: one message whose iovec points to slots of the batch. */
const message = memory(header.words * 4)
const messageWords = new Int32Array(message.buffer)
const outVectors = memory(batchSize * 16)
const outVectorWords = new Int32Array(outVectors.buffer)
const outControl = memory(128)
const outControlWords = new Int32Array(outControl.buffer)
const outControlHalves = new Uint16Array(outControl.buffer)
const target = memory(32)
/** `struct sockaddr_in` or `sockaddr_in6` of the receiver. */
export const targetWords = new Int32Array(target.buffer)
putPointer(messageWords, header.name, target.address)
putPointer(messageWords, header.iov, outVectors.address)
putPointer(messageWords, header.control, outControl.address)

/** The end of the control message that contains the source address to send from. */
let sourceEnd = 0

/** Send to the peer that the socket is connected to. */
export const sendConnected = (): void => {
  putPointer(messageWords, header.name, 0)
  messageWords[header.nameLength] = 0
  sourceEnd = 0
}

/** Send to the address in `targetWords`, from the socket's own. */
export const sendToTarget = (length: number): void => {
  putPointer(messageWords, header.name, target.address)
  messageWords[header.nameLength] = length
  sourceEnd = 0
}

/** Send from this address: `in_pktinfo` (ip(7)). */
export const sendFrom4 = (words: Int32Array, at: number): void => {
  outControlWords.set([28, 0, S.IPPROTO_IP, S.IP_PKTINFO, 0, words[at]!, 0, 0])
  sourceEnd = 32
}

/** Send from this address, by this interface unless it is 0: `in6_pktinfo` (ipv6(7)). */
export const sendFrom6 = (words: Int32Array, at: number, scope: number): void => {
  outControlWords.set([36, 0, S.IPPROTO_IPV6, S.IPV6_PKTINFO])
  for (let word = 0; word < 4; word++) outControlWords[4 + word] = words[at + word]!
  outControlWords[8] = scope
  outControlWords[9] = 0
  sourceEnd = 40
}

/** The packets to send, in order: `order[0 … length - 1]`. */
export const order = new Int32Array(batchSize)

/**
 * Sends the first `length` packets of `order` as set by `sendConnected`, or by `sendToTarget` and `sendFrom`;
 * returns the bytes sent.
 */
export const send = (fd: number, length: number): number => {
  let bytes = 0
  for (let at = 0; at < length; ) {
    const size = sizeOf(order[at]!)
    let end = at + 1
    let total = size
    if (size > 0)
      while (end < length) {
        const next = sizeOf(order[end]!)
        if (next > size || next === 0 || total + next > maxSegmented) break
        total += next
        end++
        if (next < size) break
      }
    bytes += sendRun(fd, at, end, size) ? total : 0
    at = end
  }
  return bytes
}

/** Sends these bytes, as set by `sendToTarget` and `sendFrom`. */
export const sendBytes = (fd: number, address: number, length: number): void => {
  putPointer(outVectorWords, 0, address)
  outVectorWords[2] = length
  outVectorWords[3] = 0
  messageWords[header.iovLength] = 1
  messageWords[header.controlLength] = sourceEnd
  S.sendmsg(fd, message.address, S.MSG_DONTWAIT)
}

const sendRun = (fd: number, at: number, end: number, segment: number): boolean => {
  for (let index = at; index < end; index++) {
    const packet = order[index]!
    putPointer(outVectorWords, (index - at) * 4, slots.address + packet * slotSize)
    outVectorWords[(index - at) * 4 + 2] = sizeOf(packet)
    outVectorWords[(index - at) * 4 + 3] = 0
  }
  messageWords[header.iovLength] = end - at
  messageWords[header.controlLength] = sourceEnd
  if (end - at > 1) {
    const word = sourceEnd / 4
    outControlWords[word] = 18
    outControlWords[word + 1] = 0
    outControlWords[word + 2] = S.IPPROTO_UDP
    outControlWords[word + 3] = S.UDP_SEGMENT
    outControlHalves[word * 2 + 8] = segment
    messageWords[header.controlLength] = sourceEnd + 24
  }
  if (S.sendmsg(fd, message.address, S.MSG_DONTWAIT) >= 0) return true
  const errno = S.errno()
  // An earlier packet was refused: the kernel reports that once, and it does not concern this one.
  if (errno === S.ECONNREFUSED) return S.sendmsg(fd, message.address, S.MSG_DONTWAIT) >= 0
  const unsegmentable = errno === S.EINVAL || errno === S.EMSGSIZE || errno === S.EIO
  if (end - at === 1 || !unsegmentable) return false
  // The packet exceeds the route's MTU, or the device lacks segmentation: send one by one.
  let sent = true
  for (let index = at; index < end; index++) sent = sendRun(fd, index, index + 1, 0) && sent
  return sent
}

/**
 * Packets to a frontend that no backend serves at the moment: kept for a while, with the keys of the flows that they
 * would begin. A route that leads to a backend gets them, else their senders learn that the port is unreachable.
 */
import { memory } from "./Memory.ts"
import { reportWaits, type ServedRoute } from "./RouteTable.ts"
import { packetBytes, sendBytes, sendConnected } from "./UdpBatch.ts"
import { probe } from "./UdpFlows.ts"

interface Waiting {
  readonly front: number
  readonly key: Int32Array
  readonly packet: Uint8Array
  readonly due: number
}

/** What is beyond is dropped, and its senders send again. */
const mostBytes = 1 << 20
const mostPackets = 1024
/** A packet without data takes memory too. */
const overhead = 256

let packets: Array<Waiting> = []
let bytes = 0

export const hasWaiting = (): boolean => packets.length > 0

/** Keeps a packet of the current batch, whose key is in `probe`. */
export const keep = (route: ServedRoute, packet: number, now: number): void => {
  const { fd, waitMillis } = route
  reportWaits(route, now)
  const own = packetBytes(packet)
  const size = own.length + overhead
  if (bytes + size > mostBytes || packets.length === mostPackets) return
  bytes += size
  packets.push({ front: fd, key: probe.slice(), packet: own.slice(), due: now + waitMillis })
}

/** No descriptor, and no other number of `UdpFlows`. */
export const refused = -3

/**
 * Sends the packets of a socket for which there is a backend now. `flowOf` returns the flow of the key in `probe`,
 * `refused` if it may not wait for one any more, or another negative number while it has none.
 */
export const sendServed = (
  front: number,
  flowOf: () => number,
  sent: (flow: number, bytes: number) => void
): void =>
  takeOut((waiting) => {
    if (waiting.front !== front) return false
    probe.set(waiting.key)
    const flow = flowOf()
    if (flow < 0) return flow === refused
    copy.set(waiting.packet)
    sendConnected()
    sendBytes(flow, scratch.address, waiting.packet.length)
    sent(flow, waiting.packet.length)
    return true
  })

/** The socket's last route is gone. */
export const dropAllOf = (front: number): void => takeOut((waiting) => waiting.front === front)

/** `refuse` gets the key in `probe`. */
export const refuseDue = (now: number, refuse: (front: number) => void): void =>
  takeOut(({ due, front, key }) => {
    if (due > now) return false
    probe.set(key)
    refuse(front)
    return true
  })

const takeOut = (isDone: (waiting: Waiting) => boolean): void => {
  const left: Array<Waiting> = []
  for (const waiting of packets)
    if (isDone(waiting)) bytes -= waiting.packet.length + overhead
    else left.push(waiting)
  packets = left
}

const scratch = memory(65536)
const copy = new Uint8Array(scratch.buffer, 0, 65536)

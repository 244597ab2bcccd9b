// biome-ignore-all lint/style/noNonNullAssertion: every packet of a batch and every descriptor has its place in every table
/**
 * Forwards packets from clients to the flows' backends, and the answers back, from the address that the client sent
 * to.
 */
import * as S from "../../linux/Syscalls.ts"
import { counterOf, kindOf, maxDescriptors } from "../ThreadMessages.ts"
import { routeIdOf } from "./Epoll.ts"
import type * as Routes from "./RouteTable.ts"
import { count, kind } from "./ThreadData.ts"
import * as Send from "./UdpBatch.ts"
import * as Flows from "./UdpFlows.ts"
import { mayRefuse, refuse } from "./UdpRefusals.ts"
import * as Waiting from "./WaitingPackets.ts"

const { key, keys, keyWords, probe } = Flows

const wildcardFronts = new Uint8Array(maxDescriptors)
const fronts6 = new Uint8Array(maxDescriptors)

/** Forwards packets of this socket. */
export const front = (fd: number, { family, wildcard }: Routes.ServedRoute): void => {
  wildcardFronts[fd] = wildcard ? 1 : 0
  fronts6[fd] = family === 6 ? 1 : 0
  kind[fd] = kindOf.front
}

/**
 * The other packets of the batch that wait for a flow: its last one, and the successor of each, -1 if there is
 * none.
 */
const lastWaiting = new Int32Array(maxDescriptors)
const nextWaiting = new Int32Array(Send.batchSize)
const flowsOfBatch = new Int32Array(Send.batchSize)

export const onFront = (fd: number, now: number): void => {
  const packets = Send.receive(fd, Send.sizeOfName, wildcardFronts[fd] === 1 ? Send.sizeOfControl : 0)
  let flows = 0
  let flow = -1
  for (let packet = 0; packet < packets; packet++) {
    if (!readKey(fd, packet)) continue
    if (flow < 0 || !Flows.isFlow(flow) || !Flows.isProbe(flow)) flow = Flows.flowOfProbe()
    if (flow < 0) {
      if (flow === Flows.unserved) waitOrRefuse(fd, packet, now)
      continue
    }
    // Immediately, so that a later packet of this batch does not evict this flow as idle.
    Flows.heardClient(flow)
    nextWaiting[packet] = -1
    if (Flows.firstWaiting[flow] === 0) {
      Flows.firstWaiting[flow] = packet + 1
      flowsOfBatch[flows++] = flow
    } else nextWaiting[lastWaiting[flow]!] = packet
    lastWaiting[flow] = packet
  }
  Send.sendConnected()
  for (let index = 0; index < flows; index++) {
    const to = flowsOfBatch[index]!
    let length = 0
    for (let packet = Flows.firstWaiting[to]! - 1; packet !== -1; packet = nextWaiting[packet]!)
      Send.order[length++] = packet
    Flows.firstWaiting[to] = 0
    if (length > 0) count(routeIdOf[to]!, counterOf.bytesIn, Send.send(to, length))
  }
}

/** For a packet whose key is in `probe`, and for which there is no backend. */
const waitOrRefuse = (front: number, packet: number, now: number): void => {
  const route = Flows.idleRoute
  if (route !== undefined && route.waitMillis > 0) Waiting.keep(route, packet, now)
  else refuseProbe(front, now)
}

const refuseProbe = (front: number, now: number): void => {
  if (!mayRefuse(now)) return
  addressToClient(probe, 0)
  refuse(probe, 0, fronts6[front] === 1 ? 6 : 4)
}

/** Sends what waits at this socket and has a backend now; refuses what may wait no longer. */
export const sendWaiting = (front: number, now: number): void =>
  Waiting.sendServed(
    front,
    () => {
      const flow = Flows.flowOfProbe()
      if (flow !== Flows.unserved || Flows.idleRoute?.waitMillis !== 0) return flow
      refuseProbe(front, now)
      return Waiting.refused
    },
    (flow, bytes) => {
      Flows.heardClient(flow)
      count(routeIdOf[flow]!, counterOf.bytesIn, bytes)
    }
  )

export const refuseDue = (now: number): void => Waiting.refuseDue(now, (front) => refuseProbe(front, now))

/** Forwards the backend's packets. Its refusal of one is read here too and passed on, and the flow continues. */
export const onFlow = (fd: number): void => {
  const packets = Send.receive(fd, 0, 0)
  const isRefusal = packets < 0 && S.errno() === S.ECONNREFUSED
  if (packets <= 0 && !isRefusal) return
  addressToClient(keys, fd * keyWords)
  if (isRefusal) {
    refuse(keys, fd * keyWords, fronts6[keys[fd * keyWords + key.front]!] === 1 ? 6 : 4)
    return
  }
  Flows.heardBackend(fd)
  for (let packet = 0; packet < packets; packet++) Send.order[packet] = packet
  count(routeIdOf[fd]!, counterOf.bytesOut, Send.send(keys[fd * keyWords + key.front]!, packets))
}

/**
 * Writes the sender and the destination of a packet, the key of its flow, to `probe`. False for a packet to a
 * broadcast or multicast address, which a socket on the unspecified address receives as well: the answer could not
 * come from its destination.
 */
const readKey = (fd: number, packet: number): boolean => {
  const { nameWords, controlWords } = Send
  const name = packet * (Send.sizeOfName / 4)
  const control = packet * (Send.sizeOfControl / 4)
  probe.fill(0)
  probe[key.front] = fd
  probe[key.port] = nameWords[name]! >>> 16
  const hasLocal = wildcardFronts[fd] === 1 && Send.controlLengthOf(packet) >= 28
  if (fronts6[fd] === 0) {
    probe[key.client] = nameWords[name + 1]!
    if (!hasLocal) return true
    // `ipi_spec_dst`, an address of this host, and `ipi_addr`, the one in the packet's header.
    probe[key.local] = controlWords[control + 5]!
    return controlWords[control + 5] === controlWords[control + 6]
  }
  for (let word = 0; word < 4; word++) probe[key.client + word] = nameWords[name + 2 + word]!
  probe[key.clientScope] = nameWords[name + 6]!
  if (!hasLocal) return true
  for (let word = 0; word < 4; word++) probe[key.local + word] = controlWords[control + 4 + word]!
  if (isLinkLocal(controlWords[control + 4]!)) probe[key.localScope] = controlWords[control + 8]!
  return !isMulticast(controlWords[control + 4]!)
}

/** ff00::/8, of the first word as it lies in memory. */
const isMulticast = (word: number): boolean => (word & 0xff) === 0xff

/** fe80::/10, of the first word as it lies in memory. */
const isLinkLocal = (word: number): boolean => (word & 0xc0ff) === 0x80fe

/** Prepares to send to the client of the key in `words` at `start`, from the address that it sent to. */
const addressToClient = (words: Int32Array, start: number): void => {
  const { targetWords } = Send
  const fd = words[start + key.front]!
  const port = words[start + key.port]! << 16
  if (fronts6[fd] === 0) {
    targetWords[0] = S.AF_INET | port
    targetWords[1] = words[start + key.client]!
    targetWords[2] = 0
    targetWords[3] = 0
    Send.sendToTarget(16)
    if (wildcardFronts[fd] === 1) Send.sendFrom4(words, start + key.local)
    return
  }
  targetWords[0] = S.AF_INET6 | port
  targetWords[1] = 0
  for (let word = 0; word < 4; word++) targetWords[2 + word] = words[start + key.client + word]!
  targetWords[6] = words[start + key.clientScope]!
  Send.sendToTarget(28)
  if (wildcardFronts[fd] === 1) Send.sendFrom6(words, start + key.local, words[start + key.localScope]!)
}

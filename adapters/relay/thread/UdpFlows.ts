// biome-ignore-all lint/style/noNonNullAssertion: every descriptor below maxDescriptors has its place in every table
/**
 * UDP flows: for each client and each address that it sent to, a socket connected to the backend. A hash of both
 * finds them. Their number per route is bounded, and a further flow evicts the one that has been idle longest:
 * first among those that the backend never answered, then among those where nothing followed the answer, so that
 * neither a flood nor many short exchanges end a conversation.
 */
import * as S from "../../linux/Syscalls.ts"
import { EPOLLIN } from "../EpollEvent.ts"
import { budgetOf, counterOf, kindOf, maxDescriptors } from "../ThreadMessages.ts"
import * as Budget from "./Budget.ts"
import { adopt, discard, routeIdOf, watch } from "./Epoll.ts"
import { enter, leave } from "./Limiting.ts"
import { isOwnPacket, onConnected } from "./Loops.ts"
import * as Routes from "./RouteTable.ts"
import { count, kind, settings } from "./ThreadData.ts"

/**
 * A key in 32-bit words: the front socket; the client's port (network order), address and scope; the address that
 * it sent to and its scope, both 0 if the socket is bound to it. IPv4 uses the first word of an address.
 */
export const keyWords = 12
export const key = { front: 0, port: 1, client: 2, clientScope: 6, local: 7, localScope: 11 } as const

/** The key of the current packet. */
export const probe = new Int32Array(keyWords)
const probeBytes = new Uint8Array(probe.buffer)

export const keys = new Int32Array(maxDescriptors * keyWords)
const keyBytes = new Uint8Array(keys.buffer)

const UNANSWERED = 0
const ANSWERED = 2
/** The client sent again after an answer. */
const CONVERSING = 4
const lists = [UNANSWERED, ANSWERED, CONVERSING] as const

const listOf = new Uint8Array(maxDescriptors)
const older = new Int32Array(maxDescriptors)
const newer = new Int32Array(maxDescriptors)
/** The tick of the last packet. */
const seen = new Int32Array(maxDescriptors)

const buckets = new Int32Array(1 << 16)
const nextInBucket = new Int32Array(maxDescriptors)

/** One more than the index of the first packet in the current batch that waits to be sent to a flow; 0 is none. */
export const firstWaiting = new Int32Array(maxDescriptors)

/** Idle time is counted in ticks, so that a busy flow is moved in its list only once a tick. */
export const tickMillis = 250
let tick = 0
let time = 0
/** Called before events are handled, however long the wait was. */
export const setTime = (now: number): void => {
  time = now
  tick = Math.floor(now / tickMillis)
}

const routesWithFlows = new Set<Routes.ServedRoute>()
export const hasFlows = (): boolean => routesWithFlows.size > 0

/** There is a route for the key in `probe`, and no backend that takes connections. */
export const unserved = -2
/** The route, where `flowOfProbe` has returned `unserved`. */
export let idleRoute: Routes.ServedRoute | undefined

/** The flow of the key in `probe`, created if necessary; -1 if no route serves it, or `unserved`. */
export const flowOfProbe = (): number => {
  const bucket = hash(probe, 0)
  for (let fd = buckets[bucket]!; fd !== 0; fd = nextInBucket[fd]!) if (isProbe(fd)) return fd
  return begin(bucket)
}

/** Whether the flow has the key in `probe`. */
export const isProbe = (fd: number): boolean => {
  const start = fd * keyWords
  for (let word = 0; word < keyWords; word++) if (keys[start + word] !== probe[word]) return false
  return true
}

/** Differs in each thread, so that no sender can choose source ports that fall into one bucket. */
const seed = (Math.random() * 2 ** 32) | 0

const hash = (words: Int32Array, start: number): number => {
  let mixed = seed
  for (let word = 0; word < keyWords; word++)
    mixed = Math.imul(mixed ^ words[start + word]!, 0x9e3779b1) ^ (mixed >>> 15)
  mixed ^= mixed >>> 16
  return Math.imul(mixed, 0x2c1b3c6d) >>> 16
}

const begin = (bucket: number): number => {
  const first = Routes.firstRoute(probe[key.front]!)
  if (first === undefined) return -1
  const found = Routes.servesAll(first) ? first : Routes.routeFor(first, probeBytes, key.local * 4)
  if (found === undefined) return -1
  const route = Routes.routeOfSlot(first, found, probeBytes, key.client * 4)
  if (!Routes.admitsSource(route, probeBytes, key.client * 4)) {
    count(route.id, counterOf.overAllow, 1)
    return -1
  }
  const family = route.family === 4 ? S.AF_INET : S.AF_INET6
  if (isOwnPacket(route, family | (probe[key.port]! << 16), probe, key.client)) return -1
  if (route.isIdle) {
    idleRoute = route
    return unserved
  }
  if (!enter(route, probeBytes, key.client * 4)) return -1
  route.flows ??= { size: 0, edges: new Int32Array(6) }
  if (route.flows.size >= settings.maxFlows) endOldest(route.flows)
  else if (!Budget.mayTake(route.flows.size, 1, time)) {
    Budget.refuse(budgetOf.refusedUdp, time)
    if (!endOldest(route.flows)) return left(route)
  }
  const fd = connected(route)
  if (fd < 0) return left(route)
  count(route.id, counterOf.connections, 1)
  keys.set(probe, fd * keyWords)
  nextInBucket[fd] = buckets[bucket]!
  buckets[bucket] = fd
  listOf[fd] = UNANSWERED
  seen[fd] = tick
  link(route.flows, fd)
  if (route.flows.size++ === 0) routesWithFlows.add(route)
  count(route.id, counterOf.open, 1)
  return fd
}

/** -1, for a flow that could not begin. */
const left = (route: Routes.ServedRoute): number => {
  leave(route)
  return -1
}

/** If no descriptor is left, evicts the route's longest idle flow. */
const connected = (route: Routes.ServedRoute): number => {
  let fd = newSocket(route)
  if (fd < 0 && endOldest(route.flows!)) fd = newSocket(route)
  if (fd < 0 || !adopt(fd, kindOf.flow, route.id)) return -1
  if (S.connect(fd, Routes.backendAddress(route), route.backendLength) < 0 || watch(fd, EPOLLIN) < 0) {
    discard(fd)
    return -1
  }
  onConnected(fd, route, time)
  return fd
}

const newSocket = (route: Routes.ServedRoute): number =>
  S.socket(Routes.backendFamily(route), S.SOCK_DGRAM | S.NONBLOCK_CLOEXEC, 0)

const endOldest = ({ edges }: Routes.FlowLists): boolean => {
  const victim =
    idleFor(edges, UNANSWERED, answerMillis) ||
    idleFor(edges, ANSWERED, answerMillis) ||
    idleFor(edges, CONVERSING, pauseMillis) ||
    edges[ANSWERED]! ||
    edges[UNANSWERED]! ||
    edges[CONVERSING]!
  if (victim !== 0) endFlow(victim)
  return victim !== 0
}

/** Within this time an answer may be on its way, and flows that began in one burst don't evict each other. */
const answerMillis = 1000
/** How long a conversation may pause. */
const pauseMillis = 15_000

/** The oldest flow of a list, if it has been idle for this long; else 0. */
const idleFor = (edges: Int32Array, list: number, millis: number): number => {
  const oldest = edges[list]!
  return oldest !== 0 && seen[oldest]! <= tick - millis / tickMillis ? oldest : 0
}

const endFlow = (fd: number): void => {
  const route = Routes.routeById(routeIdOf[fd]!)!
  const flows = route.flows!
  unlink(flows, fd)
  const bucket = hash(keys, fd * keyWords)
  if (buckets[bucket] === fd) buckets[bucket] = nextInBucket[fd]!
  else {
    let before = buckets[bucket]!
    while (nextInBucket[before] !== fd) before = nextInBucket[before]!
    nextInBucket[before] = nextInBucket[fd]!
  }
  // The number may be reused within the batch, and the waiting packets are not for the new owner.
  firstWaiting[fd] = 0
  discard(fd)
  if (--flows.size === 0) routesWithFlows.delete(route)
  count(route.id, counterOf.open, -1)
  leave(route)
}

/** A packet came from the client. */
export const heardClient = (fd: number): void => {
  if (seen[fd] !== tick) move(fd, listOf[fd] === ANSWERED ? CONVERSING : listOf[fd]!)
}

/** A packet came from the backend. */
export const heardBackend = (fd: number): void => {
  if (listOf[fd] === UNANSWERED) move(fd, ANSWERED)
  else if (seen[fd] !== tick) move(fd, listOf[fd]!)
}

const move = (fd: number, list: number): void => {
  const flows = Routes.routeById(routeIdOf[fd]!)!.flows!
  unlink(flows, fd)
  listOf[fd] = list
  seen[fd] = tick
  link(flows, fd)
}

const link = ({ edges }: Routes.FlowLists, fd: number): void => {
  const list = listOf[fd]!
  const newest = edges[list + 1]!
  older[fd] = newest
  newer[fd] = 0
  if (newest === 0) edges[list] = fd
  else newer[newest] = fd
  edges[list + 1] = fd
}

const unlink = ({ edges }: Routes.FlowLists, fd: number): void => {
  const list = listOf[fd]!
  const before = older[fd]!
  const after = newer[fd]!
  if (before === 0) edges[list] = after
  else newer[before] = after
  if (after === 0) edges[list + 1] = before
  else older[after] = before
}

/** Ends flows that have been idle for longer than their route allows. */
export const endIdle = (): void => {
  for (const route of routesWithFlows) {
    const last = tick - Math.ceil(route.udpIdleMillis / tickMillis)
    for (const list of lists)
      for (let fd = route.flows!.edges[list]!; fd !== 0 && seen[fd]! <= last; fd = route.flows!.edges[list]!)
        endFlow(fd)
  }
}

export const endFlows = (route: Routes.ServedRoute): void => {
  while (route.flows !== undefined && endOldest(route.flows)) {}
}

/** Ends flows of sources that the route does not admit. */
export const endRefusedFlows = (route: Routes.ServedRoute, { edges }: Routes.FlowLists): void => {
  for (const list of lists)
    for (let fd = edges[list]!, next = 0; fd !== 0; fd = next) {
      next = newer[fd]!
      if (!Routes.admitsSource(route, keyBytes, (fd * keyWords + key.client) * 4)) endFlow(fd)
    }
}

export const isFlow = (fd: number): boolean => kind[fd] === kindOf.flow

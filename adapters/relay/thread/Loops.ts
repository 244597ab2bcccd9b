// biome-ignore-all lint/style/noNonNullAssertion: every word of a socket's address has its place
/**
 * Ends traffic that the relay sends to itself. A table that all threads share records sockets to backends by their
 * local port; a client with the address of one of them is the relay, and is not served.
 *
 * Reading a socket's address takes a system call, so only a few sockets are recorded: of each route the first one
 * after any route was opened, then one in each tenth of a second, and all of them once the route was found to be in
 * a loop.
 */
import { portCount } from "../ThreadMessages.ts"
import type { ServedRoute } from "./RouteTable.ts"
import { nameWords, readOriginalName, readOwnName, readPeerName } from "./SocketNames.ts"
import { ownPorts, report } from "./ThreadData.ts"

/** When a route was last opened or replaced: from then on a backend may lead back to the relay. */
let changed = 0
export const routesChanged = (now: number): void => {
  changed = now
}

const pauseMillis = 100

/** Call when a socket was connected to the route's backend. */
export const onConnected = (fd: number, route: ServedRoute, now: number): void => {
  const isKept = route.inLoop || route.lastKept <= changed || now - route.lastKept >= pauseMillis
  if (!isKept || !readOwnName(fd)) return
  route.lastKept = now
  Atomics.store(ownPorts, placeOf(route, nameWords[0]!), fd)
}

/**
 * Whether this relay made a connection: `words` begin with the client's socket address. The kernel gives the same
 * address and port to connections with different destinations, so compare the destination too.
 */
export const isOwnConnection = (route: ServedRoute, accepted: number, words: Int32Array): boolean => {
  const fd = ownSocketAt(route, words[0]!, words, addressAt(route))
  if (fd === 0 || !readPeerName(fd)) return false
  peer.set(nameWords)
  const reached =
    (readOwnName(accepted) && isName(route, peer[0]!, peer, addressAt(route))) ||
    // A kernel rule may have redirected it.
    (readOriginalName(accepted, route.family) && isName(route, peer[0]!, peer, addressAt(route)))
  return reached && found(route)
}

/**
 * Whether this relay sent a packet. Takes the family and port of its sender as the first word of a socket address,
 * and the address at a word of `words`. No two UDP sockets have the same.
 */
export const isOwnPacket = (route: ServedRoute, first: number, words: Int32Array, at: number): boolean =>
  ownSocketAt(route, first, words, at) !== 0 && found(route)

const peer = new Int32Array(nameWords.length)

const found = (route: ServedRoute): boolean => {
  if (!route.inLoop) report({ _tag: "Loop", id: route.id })
  route.inLoop = true
  return true
}

/** The recorded socket that has this address, or 0. */
const ownSocketAt = (route: ServedRoute, first: number, words: Int32Array, at: number): number => {
  const place = placeOf(route, first)
  const fd = Atomics.load(ownPorts, place)
  if (fd === 0) return 0
  // It may have been closed since, and its number reused.
  if (readOwnName(fd) && portIn(nameWords[0]!) === portIn(first))
    return isName(route, first, words, at) ? fd : 0
  Atomics.compareExchange(ownPorts, place, fd, 0)
  return 0
}

/** Whether the name that was last read is this one. */
const isName = (route: ServedRoute, first: number, words: Int32Array, at: number): boolean => {
  if (nameWords[0] !== first) return false
  const start = addressAt(route)
  const length = route.family === 4 ? 1 : 4
  for (let word = 0; word < length; word++) if (nameWords[start + word] !== words[at + word]) return false
  return true
}

/** The index of the word in a socket address at which the address begins. */
const addressAt = ({ family }: ServedRoute): number => (family === 4 ? 1 : 2)

/** TCP and UDP ports are separate. `port` is the number as it is in memory, in network order. */
const placeOf = ({ protocol }: ServedRoute, first: number): number =>
  portIn(first) + (protocol === "tcp" ? 0 : portCount)

const portIn = (first: number): number => first >>> 16

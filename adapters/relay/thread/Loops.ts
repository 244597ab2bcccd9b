// biome-ignore-all lint/style/noNonNullAssertion: every word of a socket's address has its place
/**
 * Ends what the relay sends to itself. Sockets to backends are kept by their local port, in a table that all threads share;
 * a client that has the address of one of them is the relay, and is not served.
 *
 * Reading a socket's address takes a call, so few sockets are kept: of each route the first one after any route was opened,
 * then one in each tenth of a second, and all of them once the route was found to be in a loop.
 */
import { portCount } from "../ThreadMessages.ts"
import type { ServedRoute } from "./RouteTable.ts"
import { nameWords, readOwnName } from "./SocketNames.ts"
import { ownPorts, report } from "./ThreadData.ts"

/** When a route was opened or replaced last: from then on a backend may lead back. */
let changed = 0
export const routesChanged = (now: number): void => {
  changed = now
}

const pauseMillis = 100

/** A socket was connected to the route's backend. */
export const onConnected = (fd: number, route: ServedRoute, now: number): void => {
  const isKept = route.inLoop || route.lastKept <= changed || now - route.lastKept >= pauseMillis
  if (!isKept || !readOwnName(fd)) return
  route.lastKept = now
  Atomics.store(ownPorts, placeOf(route, nameWords[0]!), fd)
}

/**
 * Whether a client of the route is this relay. Its family and port are given as the first word of its socket address, its
 * address as it lies at a word of `words`.
 */
export const isLoop = (route: ServedRoute, first: number, words: Int32Array, at: number): boolean => {
  const place = placeOf(route, first)
  const fd = Atomics.load(ownPorts, place)
  if (fd === 0) return false
  // It may have been closed since, and its number be another's.
  if (!readOwnName(fd) || portIn(nameWords[0]!) !== portIn(first)) {
    Atomics.compareExchange(ownPorts, place, fd, 0)
    return false
  }
  const [start, length] = route.family === 4 ? [1, 1] : [2, 4]
  if (nameWords[0] !== first) return false
  for (let word = 0; word < length; word++) if (nameWords[start + word] !== words[at + word]) return false
  if (!route.inLoop) report({ _tag: "Loop", id: route.id })
  route.inLoop = true
  return true
}

/** TCP and UDP ports are apart. A port is told as it lies in memory, in network order. */
const placeOf = ({ protocol }: ServedRoute, first: number): number =>
  portIn(first) + (protocol === "tcp" ? 0 : portCount)

const portIn = (first: number): number => first >>> 16

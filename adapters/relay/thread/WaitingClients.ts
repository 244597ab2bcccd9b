/**
 * TCP clients of a frontend that no backend serves at the moment, or that others still wait for: accepted, and watched
 * for their end alone. A route that leads to a backend serves them, else they are reset when their time is over. A client
 * has a place among the route's open connections, so the budget of descriptors bounds them.
 */
import { EPOLLET } from "../EpollEvent.ts"
import { kindOf } from "../ThreadMessages.ts"
import { adopt, forget, unwatch, watch } from "./Epoll.ts"
import { leave } from "./Limiting.ts"
import { admitsClient, isSameFrontend, openConnections, reportWaits, type ServedRoute } from "./RouteTable.ts"
import { nameBytes, readPeerName } from "./SocketNames.ts"
import { abandon } from "./TcpConnections.ts"

interface Waiting {
  route: ServedRoute
  readonly due: number
}

/** By descriptor, in the order in which they came. */
const clients = new Map<number, Waiting>()
/** How much longer a client may wait for its turn, once there is a backend. */
const patienceMillis = 30_000
/** For each frontend whose clients have a backend, and not their turn yet, the route that could not take one. */
const queues = new Set<ServedRoute>()

export const hasWaiting = (): boolean => clients.size > 0

/** Lets an accepted client wait, which has its place within the limits. */
export const wait = (route: ServedRoute, fd: number, now: number): void => {
  if (!adopt(fd, kindOf.waiting, route.id)) {
    leave(route)
    return
  }
  clients.set(fd, { route, due: now + route.waitMillis })
  count(route, 1)
  if (route.isIdle) reportWaits(route, now)
  // Epoll reports failures and resets without being asked.
  if (watch(fd, EPOLLET) < 0) refuse(fd)
}

/** The client has reset its connection. */
export const onWaiting = (fd: number): void => refuse(fd)

/**
 * Takes out the clients that `routeOf` finds a backend for, until `hasTurn` returns false: that one and the others of
 * its frontend have their turn later. Each has its place still, at the route where it waited.
 */
export const takeServed = (
  socket: number,
  routeOf: (fd: number) => ServedRoute | undefined,
  hasTurn: (route: ServedRoute) => boolean,
  begin: (route: ServedRoute, fd: number) => void
): void => {
  for (const route of queues) if (route.fd === socket) queues.delete(route)
  for (const [fd, { route }] of clients) {
    if (route.fd !== socket || isQueued(route)) continue
    const next = routeOf(fd)
    if (next === undefined) continue
    if (hasTurn(next)) {
      release(fd)
      begin(next, fd)
    } else queues.add(next)
  }
}

export const hasQueued = (): boolean => queues.size > 0
/** The sockets with clients that have their turn next. */
export const queuedSockets = (): ReadonlySet<number> => new Set([...queues].map(({ fd }) => fd))

/** Whether clients of the route's frontend have a backend, and not their turn yet. */
export const isQueued = (route: ServedRoute): boolean => {
  for (const queued of queues) if (queued.fd === route.fd && isSameFrontend(queued, route)) return true
  return false
}

/**
 * The clients of a route that is closed wait at another route of their frontend, which counts its places in the same
 * memory, or are refused.
 */
export const moveFrom = (route: ServedRoute, routeOf: (fd: number) => ServedRoute | undefined): void => {
  for (const [fd, waiting] of clients) {
    if (waiting.route !== route) continue
    const other = routeOf(fd)
    if (other === undefined) {
      refuse(fd)
      continue
    }
    count(route, -1)
    count(other, 1)
    waiting.route = other
  }
}

/** Refuses those that the route does not admit now. */
export const refuseForeign = (route: ServedRoute): void => {
  for (const [fd, waiting] of clients)
    if (waiting.route === route && !(readPeerName(fd) && admitsClient(route, nameBytes, 0))) refuse(fd)
}

export const refuseAllOf = (id: number): void => {
  for (const [fd, { route }] of clients) if (route.id === id) refuse(fd)
}

export const refuseAll = (): void => {
  for (const fd of clients.keys()) refuse(fd)
}

export const refuseDue = (now: number): void => {
  for (const [fd, { due, route }] of clients)
    if (due + (isQueued(route) ? patienceMillis : 0) <= now) refuse(fd)
}

const refuse = (fd: number): void => {
  leave(release(fd))
  abandon(fd)
}

/** The descriptor stays open, and has its place still. Returns the route where the client waited. */
const release = (fd: number): ServedRoute | undefined => {
  const route = clients.get(fd)?.route
  clients.delete(fd)
  if (route !== undefined) count(route, -1)
  unwatch(fd)
  forget(fd)
  return route
}

const count = ({ id }: ServedRoute, change: number): void => {
  openConnections[id] = (openConnections[id] ?? 0) + change
}

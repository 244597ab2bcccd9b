// biome-ignore-all lint/style/noNonNullAssertion: every descriptor below maxDescriptors has its place in every table
/**
 * New connections: accepts them from the reserved sockets, connects each to its backend, and watches it until it is
 * established. A connect(2) to a backend on this host is complete when it returns, so data that the client has
 * already sent is forwarded at once.
 */
import { proxyHeader } from "../../../src/relay/ProxyProtocol.ts"
import * as S from "../../linux/Syscalls.ts"
import { EPOLLOUT } from "../EpollEvent.ts"
import { budgetOf, counterOf, keepaliveIntervalSeconds, keepaliveSeconds, kindOf } from "../ThreadMessages.ts"
import * as Budget from "./Budget.ts"
import { Deadlines } from "./Deadlines.ts"
import { adopt, discard, forget, pauseListener, resumeListeners, routeIdOf, watch } from "./Epoll.ts"
import { enter, leave } from "./Limiting.ts"
import { isOwnConnection, onConnected } from "./Loops.ts"
import { memory } from "./Memory.ts"
import * as Pipes from "./Pipes.ts"
import * as Routes from "./RouteTable.ts"
import { nameBytes, readOwnName, readPeerName } from "./SocketNames.ts"
import * as Ends from "./TcpConnections.ts"
import { count, kind, settings } from "./ThreadData.ts"
import * as Waiting from "./WaitingClients.ts"

/** Few at a time, so that another thread gets the next ones. */
const acceptsPerWake = 4

/** Younger connections are spared the calls that switch keepalive on. */
const youthMillis = 10_000

const sizeOfAddress = 28
const scratch = memory(128)
const words = new Int32Array(scratch.buffer)
const bytes = new Uint8Array(scratch.buffer)
const client = { at: 0, address: scratch.address }
const length = { at: 16, address: scratch.address + 64 }
const option = { at: 17, address: scratch.address + 68 }

const setOption = (fd: number, level: number, name: number, value: number): number => {
  words[option.at] = value
  return S.setsockopt(fd, level, name, option.address, 4)
}

const keepAlive = (fd: number): void => {
  setOption(fd, S.SOL_SOCKET, S.SO_KEEPALIVE, 1)
  setOption(fd, S.IPPROTO_TCP, S.TCP_KEEPIDLE, keepaliveSeconds)
  setOption(fd, S.IPPROTO_TCP, S.TCP_KEEPINTVL, keepaliveIntervalSeconds)
}

const connecting = new Deadlines((fd) => (Ends.flags[fd]! & Ends.CONNECTING) !== 0)
let lastSweep = 0

/** Ignores keepalive, which can wait until something else happens. */
export const hasTimers = (): boolean => !connecting.isEmpty || Waiting.hasWaiting()

/**
 * Resets connections that were not established in time, and switches on keepalive for those that have lasted a
 * while.
 */
export const runTimers = (now: number): void => {
  connecting.run(now, Ends.reset)
  Waiting.refuseDue(now)
  if (now - lastSweep < youthMillis) return
  lastSweep = now
  Ends.eachNewlyOld(keepAlive)
}

/** Spare sockets, by family: a client is accepted only once there is a descriptor for its backend's connection. */
const spares = new Map([
  [S.AF_INET, -1],
  [S.AF_INET6, -1]
])

const spareSocket = (family: number): number => {
  const ready = spares.get(family)!
  if (ready >= 0) return ready
  const fd = S.socket(family, S.SOCK_STREAM | S.NONBLOCK_CLOEXEC, 0)
  if (fd < 0 || !adopt(fd, kindOf.end, -1)) return -1
  spares.set(family, fd)
  return fd
}

export const onListener = (listener: number, now: number) => {
  const first = Routes.firstRoute(listener)
  if (first === undefined) return
  for (let turn = 0; turn < acceptsPerWake; turn++) {
    if (!mayAccept(first, now) || spareSocket(Routes.backendFamily(first)) < 0)
      return leaveWaiting(listener, now)
    words[length.at] = sizeOfAddress
    const accepted = S.accept4(listener, client.address, length.address, S.NONBLOCK_CLOEXEC)
    if (accepted < 0) {
      const errno = S.errno()
      if (errno === S.EAGAIN) return
      if (isExhausted(errno)) return leaveWaiting(listener, now)
      continue
    }
    const found = Routes.servesAll(first) ? first : routeSpokenTo(first, accepted)
    const route = found && Routes.routeOfSlot(first, found, bytes, client.at + Routes.addressOffset(found))
    if (route === undefined) Ends.abandon(accepted)
    else if (!Routes.admitsClient(route, bytes, client.at)) {
      count(route.id, counterOf.overAllow, 1)
      Ends.abandon(accepted)
    } else if (isOwnConnection(route, accepted, words)) Ends.abandon(accepted)
    else if (route.isIdle && route.waitMillis === 0) Ends.abandon(accepted)
    else if (!enter(route, bytes, client.at + Routes.addressOffset(route))) Ends.abandon(accepted)
    // Clients that have waited longer go first.
    else if (route.isIdle || Waiting.isQueued(route)) Waiting.wait(route, accepted, now)
    else begin(route, accepted, now)
  }
}

/** As many waiting clients have their turn at a time where it takes a while until a backend takes a connection. */
const turnsAtOnce = 16

/**
 * Serves the clients that wait at this socket and have a backend now. All of them at once would overflow the queue of a
 * server that was just started, and what the kernel drops there is sent again after seconds: the first one that is not
 * taken at once, where others were, has its turn later, and all behind it at its frontend.
 */
export const serveWaiting = (listener: number, now: number): void => {
  let turns = 0
  Waiting.takeServed(
    listener,
    (fd) => {
      const route = routeOfWaiting(listener, fd)
      return route?.isIdle ? undefined : route
    },
    (route) => (route.takesAtOnce ? hasRoom(route) : turns++ < turnsAtOnce),
    (route, fd) => {
      begin(route, fd, now)
      if (kind[fd] === kindOf.end) route.takesAtOnce = isTaken(Ends.peer[fd]!, route)
    }
  )
}

/** Connects the socket that the next client gets. False where the backend's queue is full; a refusal is the client's. */
const hasRoom = (route: Routes.ServedRoute): boolean => {
  const family = Routes.backendFamily(route)
  const backend = spareSocket(family)
  if (backend < 0 || !connects(backend, route)) return true
  if (isTaken(backend, route) || S.errno() !== S.EALREADY) return true
  discard(backend)
  spares.set(family, -1)
  return false
}

/** How long a full queue gets to become shorter. */
export const turnMillis = 10
let lastTurn = 0

/** Serves the waiting clients that have their turn now. */
export const serveQueued = (now: number): void => {
  if (now - lastTurn < turnMillis) return
  lastTurn = now
  for (const listener of Waiting.queuedSockets()) serveWaiting(listener, now)
}

/** Whether a connection that was begun is established. */
const isTaken = (backend: number, route: Routes.ServedRoute): boolean =>
  S.connect(backend, Routes.backendAddress(route), route.backendLength) >= 0 || S.errno() === S.EISCONN

/** The route has been removed. */
export const moveWaiting = (route: Routes.ServedRoute): void =>
  Waiting.moveFrom(route, (fd) => {
    const other = routeOfWaiting(route.fd, fd)
    return other !== undefined && Routes.isSameFrontend(other, route) ? other : undefined
  })

/** The route that would serve this client if it came now. Leaves its address where `begin` expects it. */
const routeOfWaiting = (listener: number, fd: number): Routes.ServedRoute | undefined => {
  const first = Routes.firstRoute(listener)
  if (first === undefined || !readPeerName(fd)) return undefined
  bytes.set(nameBytes, client.at)
  const found = Routes.servesAll(first) ? first : routeSpokenTo(first, fd)
  return found && Routes.routeOfSlot(first, found, bytes, client.at + Routes.addressOffset(found))
}

/** Whether there are descriptors for one more connection of the listener's routes. */
const mayAccept = (first: Routes.ServedRoute, now: number): boolean => {
  let connections = 0
  for (let route: Routes.ServedRoute | undefined = first; route !== undefined; route = route.next)
    connections += Routes.openConnections[route.id]!
  return Budget.mayTakeInEachThread(2 * connections, 2, now)
}

const leaveWaiting = (listener: number, now: number): void => {
  Budget.refuse(budgetOf.refusedTcp, now)
  pauseListener(listener)
}

/** Accepts again from paused listeners, as far as there are descriptors for them. */
export const resume = (now: number): void =>
  resumeListeners((listener) => {
    const first = Routes.firstRoute(listener)
    return first !== undefined && mayAccept(first, now)
  })

const isExhausted = (errno: number): boolean =>
  errno === S.EMFILE || errno === S.ENFILE || errno === S.ENOBUFS || errno === S.ENOMEM

const routeSpokenTo = (first: Routes.ServedRoute, fd: number): Routes.ServedRoute | undefined => {
  readOwnName(fd)
  return Routes.routeFor(first, nameBytes, Routes.addressOffset(first))
}

/** Connects an accepted client to its backend. */
const begin = (route: Routes.ServedRoute, accepted: number, now: number) => {
  count(route.id, counterOf.connections, 1)
  const family = Routes.backendFamily(route)
  const backend = spareSocket(family)
  if (!adopt(accepted, kindOf.end, route.id) || backend < 0) {
    leave(route)
    return abandonFirst(accepted)
  }
  spares.set(family, -1)
  routeIdOf[backend] = route.id
  Ends.pair(accepted, backend, route.id)

  const header = route.proxyProtocol === undefined ? 0 : putHeader(route, accepted)
  const start = Ends.copy.address
  let received = S.recv(accepted, start + header, Ends.copySize, 0)
  if (received < 0 && S.errno() !== S.EAGAIN) {
    received = S.recv(accepted, start + header, Ends.copySize, 0)
    if (received <= 0 && S.errno() !== S.EAGAIN) return Ends.reset(accepted)
  }
  const size = Math.max(received, 0)
  if (size > 0) count(route.id, counterOf.bytesIn, size)
  if (!connects(backend, route) && !connects(backend, route)) return Ends.reset(accepted)
  onConnected(backend, route, now)

  let stands = false
  if (header + size > 0) {
    const sent = Ends.sendFrom(backend, start, header + size)
    if (sent < 0 && S.errno() !== S.EAGAIN) return Ends.reset(accepted)
    stands = sent >= 0
    if (sent < header + size) Pipes.keep(accepted, Ends.copyBytes.subarray(Math.max(sent, 0), header + size))
  }
  Ends.flags[accepted] = Ends.CLIENT | Ends.WRITABLE | Ends.NODELAY
  const sentAll = stands && Pipes.held[accepted] === 0
  Ends.flags[backend] = sentAll
    ? Ends.WRITABLE | Ends.SENT
    : Ends.WATCHED_OUT | (stands ? Ends.SENT : Ends.CONNECTING)
  if (
    watch(accepted, Ends.baseEvents) < 0 ||
    watch(backend, sentAll ? Ends.baseEvents : Ends.baseEvents | EPOLLOUT) < 0
  )
    return Ends.reset(accepted)
  if (!stands) connecting.add(backend, now + settings.connectMillis)
}

/** Whether it is connected or in progress; a repeated call returns the outcome of the first. */
const connects = (backend: number, route: Routes.ServedRoute): boolean => {
  if (S.connect(backend, Routes.backendAddress(route), route.backendLength) >= 0) return true
  const errno = S.errno()
  return errno === S.EINPROGRESS || errno === S.EALREADY || errno === S.EISCONN
}

/** There is no descriptor for the backend after all: its family differs from that of the socket's first route. */
const abandonFirst = (accepted: number) => {
  if (kind[accepted] !== kindOf.end) return
  forget(accepted)
  Ends.abandon(accepted)
}

/** Writes the PROXY protocol's header to where the client's first bytes will follow it. Returns its length. */
const putHeader = (route: Routes.ServedRoute, accepted: number): number => {
  readOwnName(accepted)
  const start = Routes.addressOffset(route)
  const end = start + (route.family === 4 ? 4 : 16)
  const peerIn = (name: Uint8Array) => ({
    octets: name.subarray(start, end),
    port: (name[2]! << 8) | name[3]!
  })
  const header = proxyHeader(route.proxyProtocol ?? "v2", peerIn(bytes), peerIn(nameBytes))
  Ends.copyBytes.set(header)
  return header.length
}

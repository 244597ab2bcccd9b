// biome-ignore-all lint/style/noNonNullAssertion: every descriptor below maxDescriptors has its place in every table
/**
 * Connections: pairs of ends, each a descriptor that knows its peer, and the transfer of bytes between them. An end
 * is watched edge-triggered, so its flags keep the known state until a call reports otherwise.
 */
import * as S from "../../linux/Syscalls.ts"
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from "../EpollEvent.ts"
import { counterOf, maxDescriptors } from "../ThreadMessages.ts"
import { discard, ends, rewatch, routeIdOf } from "./Epoll.ts"
import { leave } from "./Limiting.ts"
import { memory } from "./Memory.ts"
import * as Pipes from "./Pipes.ts"
import * as Routes from "./RouteTable.ts"
import { nameBytes, readPeerName } from "./SocketNames.ts"
import { count, generation } from "./ThreadData.ts"

/** There may be data to read. */
const READABLE = 1
export const WRITABLE = 2
/** All data was read, including the end of the stream. */
const EOF = 4
/** The relay sends nothing more to it, and has shut it down for writing. */
const SHUT = 8
export const CONNECTING = 16
/** Nagle's algorithm is off. */
export const NODELAY = 32
/** The peer has closed; only data already received is left to read. */
const HUNGUP = 64
/** Data was sent to it. */
export const SENT = 128
/** It is queued for another turn. */
const QUEUED = 256
/** It failed; data sent before that is still to be read. */
const BROKEN = 512
/** Epoll watches it for becoming writable. */
export const WATCHED_OUT = 1024
/** The end at the client. */
export const CLIENT = 2048
/** It existed at the last scan of connections. */
const OLD = 4096
/** It existed at the scan before, too, and was reported as old. */
const REPORTED = 8192

export const peer = new Int32Array(maxDescriptors)
export const flags = new Uint16Array(maxDescriptors)
/** Consecutive full reads of the direction that begins at an end. */
const fullReads = new Uint8Array(maxDescriptors)

/** The most bytes that one call copies, and the number of full reads after which a direction is spliced. */
export const copySize = 65536
const fullReadsToSplice = 2
/** How many reads one end of a connection gets before it is the others' turn. */
const budget = 4

/** Space for the PROXY header, which is sent before a client's bytes. */
const room = 256
export const copy = memory(room + copySize)
export const copyBytes = new Uint8Array(copy.buffer)

const options = memory(16)
const optionWords = new Int32Array(options.buffer)
optionWords.set([1, 0, 1])
/** `struct linger { 1, 0 }`: closing sends a reset. */
const noLinger = options.address
const one = options.address + 8

export const baseEvents = EPOLLIN | EPOLLRDHUP | EPOLLET

export const pair = (client: number, backend: number, route: number): void => {
  peer[client] = backend
  peer[backend] = client
  fullReads[client] = 0
  fullReads[backend] = 0
  Routes.openConnections[route]!++
  count(route, counterOf.open, 1)
}

/** Closes a socket so that its other side gets a reset. */
export const abandon = (fd: number): void => {
  S.setsockopt(fd, S.SOL_SOCKET, S.SO_LINGER, noLinger, 8)
  S.close(fd)
}

export const reset = (end: number): void => {
  S.setsockopt(end, S.SOL_SOCKET, S.SO_LINGER, noLinger, 8)
  S.setsockopt(peer[end]!, S.SOL_SOCKET, S.SO_LINGER, noLinger, 8)
  finish(end)
}

/** Resets the route's connections from sources that it does not admit, and those whose source is no longer known. */
export const resetRefused = (route: Routes.ServedRoute): void => {
  for (const fd of ends()) {
    if (routeIdOf[fd] !== route.id || (flags[fd]! & CLIENT) === 0) continue
    if (!readPeerName(fd) || !Routes.admitsClient(route, nameBytes, 0)) reset(fd)
  }
}

const finish = (end: number): void => {
  const other = peer[end]!
  const route = routeIdOf[end]!
  Pipes.drop(end)
  Pipes.drop(other)
  discard(end)
  discard(other)
  Routes.openConnections[route]!--
  count(route, counterOf.open, -1)
  leave(Routes.routeById(route))
}

export const onEnd = (fd: number, events: number) => {
  if ((events & EPOLLERR) !== 0) {
    if ((flags[fd]! & CONNECTING) !== 0) return reset(fd)
    flags[fd] = (flags[fd]! | BROKEN | READABLE) & ~HUNGUP
    return pump(fd)
  }
  const then = generation[fd]
  if ((events & EPOLLOUT) !== 0 && (flags[fd]! & (WRITABLE | CONNECTING)) !== WRITABLE) {
    flags[fd] = (flags[fd]! | WRITABLE) & ~CONNECTING
    pump(peer[fd]!)
    if (generation[fd] !== then) return
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) !== 0) {
    flags[fd] = flags[fd]! | READABLE | ((events & EPOLLRDHUP) !== 0 ? HUNGUP : 0)
    pump(fd)
  }
}

/** Whether a call failed, by its errno. Before it ends a connection the call is repeated; see `Syscalls`. */
const hasFailed = (result: number): boolean => result < 0 && S.errno() !== S.EAGAIN

const drain = (from: number, to: number): number => {
  const sent = Pipes.drain(from, to)
  return hasFailed(sent) ? Pipes.drain(from, to) : sent
}

export const sendFrom = (to: number, address: number, size: number): number => {
  const sent = S.send(to, address, size, S.MSG_NOSIGNAL)
  return hasFailed(sent) ? S.send(to, address, size, S.MSG_NOSIGNAL) : sent
}

/** Moves available data from an end to its peer. */
const pump = (from: number) => {
  const to = peer[from]!
  for (let turn = 0; ; turn++) {
    // Held bytes are sent first, and nothing is read until they are gone: that is the back-pressure.
    while (Pipes.held[from]! > 0) {
      if ((flags[to]! & (WRITABLE | CONNECTING)) !== WRITABLE) return
      if (drain(from, to) < 0) return S.errno() === S.EAGAIN ? awaitWritable(to) : reset(from)
      flags[to]! |= SENT
    }
    if ((flags[from]! & EOF) !== 0) return passEnd(from, to)
    if ((flags[from]! & READABLE) === 0 || (flags[to]! & CONNECTING) !== 0) return
    if (turn === budget) return queue(from)
    if (fullReads[from]! < fullReadsToSplice) {
      if (!copyOnce(from, to)) return
    } else if (!Pipes.hasPipe(from) && !Pipes.takePipe(from)) {
      fullReads[from] = 0
    } else {
      let moved = Pipes.fill(from)
      if (hasFailed(moved)) {
        moved = Pipes.fill(from)
        if (moved === 0 || hasFailed(moved)) return reset(from)
      }
      if (moved > 0) countMoved(from, moved)
      else if (moved === 0) flags[from]! |= EOF
      else {
        flags[from]! &= ~READABLE
        return Pipes.givePipe(from)
      }
    }
  }
}

/** Reads once and sends the data; `false` if there is nothing more to do for now. */
const copyOnce = (from: number, to: number): boolean => {
  let size = S.recv(from, copy.address, copySize, 0)
  if (hasFailed(size)) {
    // The kernel reports a failure once: the next read returns the end of the stream.
    size = S.recv(from, copy.address, copySize, 0)
    if (size === 0 || hasFailed(size)) {
      reset(from)
      return false
    }
  }
  if (size <= 0) {
    if (size === 0) flags[from]! |= EOF
    else flags[from]! &= ~READABLE
    return true
  }
  countMoved(from, size)
  if (size === copySize) fullReads[from]!++
  else {
    fullReads[from] = 0
    // A short read has drained the socket: after a hang-up comes the end, after a failure the failure.
    const state = flags[from]!
    if ((state & BROKEN) === 0) flags[from] = (state & HUNGUP) !== 0 ? state | EOF : state & ~READABLE
  }
  // The first segment is never delayed, so Nagle's algorithm is switched off only before the second.
  const state = flags[to]!
  if ((state & (SENT | NODELAY)) === SENT) {
    S.setsockopt(to, S.IPPROTO_TCP, S.TCP_NODELAY, one, 4)
    flags[to] = state | NODELAY
  } else flags[to] = state | SENT
  const sent = sendFrom(to, copy.address, size)
  if (sent === size) return true
  if (hasFailed(sent)) {
    reset(from)
    return false
  }
  Pipes.keep(from, copyBytes.subarray(Math.max(sent, 0), size))
  awaitWritable(to)
  return false
}

/** Passes on the end of one direction; if the other has ended too, closing tells both sides. */
const passEnd = (from: number, to: number) => {
  if ((flags[from]! & BROKEN) !== 0) return reset(from)
  if ((flags[to]! & SHUT) !== 0) return
  flags[to]! |= SHUT
  Pipes.givePipe(from)
  if ((flags[to]! & EOF) !== 0 && Pipes.held[to] === 0) return finish(from)
  S.shutdown(to, S.SHUT_WR)
}

const countMoved = (from: number, bytes: number): void =>
  count(routeIdOf[from]!, (flags[from]! & CLIENT) !== 0 ? counterOf.bytesIn : counterOf.bytesOut, bytes)

/** The socket buffer is full; from the first time on, epoll watches it for becoming writable. */
const awaitWritable = (fd: number): void => {
  const state = flags[fd]!
  flags[fd] = (state & ~WRITABLE) | WATCHED_OUT
  if ((state & WATCHED_OUT) === 0) rewatch(fd, baseEvents | EPOLLOUT)
}

/** Calls back once for each backend's end that already existed at the last call. */
export const eachNewlyOld = (each: (fd: number) => void): void => {
  for (const fd of ends()) {
    const state = flags[fd]!
    if ((state & (CLIENT | REPORTED)) !== 0) continue
    flags[fd] = state | ((state & OLD) === 0 ? OLD : REPORTED)
    if ((state & OLD) !== 0) each(fd)
  }
}

/** Ends whose turn was over before their data was, each with its generation. */
let queued: Array<number> = []

const queue = (fd: number): void => {
  if ((flags[fd]! & QUEUED) !== 0) return
  flags[fd]! |= QUEUED
  queued.push(fd, generation[fd]!)
}

export const hasQueued = (): boolean => queued.length > 0

export const nextTurn = (): void => {
  const turns = queued
  queued = []
  for (let index = 0; index < turns.length; index += 2) {
    const fd = turns[index]!
    if (generation[fd] !== turns[index + 1]) continue
    flags[fd]! &= ~QUEUED
    pump(fd)
  }
}

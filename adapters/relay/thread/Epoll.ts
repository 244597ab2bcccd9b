// biome-ignore-all lint/style/noNonNullAssertion: every descriptor below maxDescriptors has its place in every table
/**
 * A thread's single epoll instance, and the role of each descriptor: tables indexed by descriptor, so that
 * connections are not objects and the garbage collector has nothing to do.
 */
import * as S from "../../linux/Syscalls.ts"
import { ADD, dataAt, EPOLLEXCLUSIVE, EPOLLIN, MODIFY, REMOVE, eventWords as stride } from "../EpollEvent.ts"
import { kindOf, maxDescriptors } from "../ThreadMessages.ts"
import { giveBack, take } from "./Budget.ts"
import { memory } from "./Memory.ts"
import { epoll, generation, kind } from "./ThreadData.ts"

export const routeIdOf = new Int32Array(maxDescriptors)
let highest = 0

const maxEvents = 512
const events = memory(maxEvents * stride * 4)
const eventWords = new Int32Array(events.buffer)
const change = memory(stride * 4)
const changeWords = new Int32Array(change.buffer)

const control = (operation: number, fd: number, mask: number): number => {
  changeWords[0] = mask
  changeWords[dataAt] = fd
  changeWords[dataAt + 1] = generation[fd]!
  return S.epoll_ctl(epoll, operation, fd, change.address)
}

/** Negative on failure; `errno()` returns the reason. */
export const watch = (fd: number, mask: number): number => control(ADD, fd, mask)
export const rewatch = (fd: number, mask: number): number => control(MODIFY, fd, mask)
export const unwatch = (fd: number): number => control(REMOVE, fd, 0)

/** Adds a descriptor of this thread's own to the tables; closes it and returns `false` if it exceeds their size. */
export const adopt = (fd: number, as: number, route: number): boolean => {
  if (fd >= maxDescriptors) {
    S.close(fd)
    return false
  }
  take()
  kind[fd] = as
  routeIdOf[fd] = route
  if (fd > highest) highest = fd
  return true
}

/** Forgets a descriptor of this thread's own without closing it. */
export const forget = (fd: number): void => {
  giveBack()
  kind[fd] = kindOf.none
  generation[fd] = generation[fd]! + 1
}

/** Forgets a reserved socket, whose generation its owner counts. Its number may be reused already. */
export const forgetReserved = (fd: number): void => {
  kind[fd] = kindOf.none
  if (paused.length > 0) paused = paused.filter((other) => other !== fd)
}

export const discard = (fd: number): void => {
  forget(fd)
  S.close(fd)
}

/** Calls back for every end of a connection. */
export function* ends(): Generator<number> {
  for (let fd = 0; fd <= highest; fd++) if (kind[fd] === kindOf.end && routeIdOf[fd]! >= 0) yield fd
}

/** Returns the number of events; negative on failure. */
export const wait = (timeoutMillis: number): number =>
  S.epoll_wait(epoll, events.address, maxEvents, timeoutMillis)

/** The descriptor of event `index`, or -1 if it was closed since; its number may be reused. */
export const eventDescriptor = (index: number): number => {
  const fd = eventWords[index * stride + dataAt]!
  return generation[fd] === eventWords[index * stride + dataAt + 1]! ? fd : -1
}

export const eventMask = (index: number): number => eventWords[index * stride]!

let paused: Array<number> = []

/** Pauses a listener while descriptors lack: it would be ready all the time. */
export const pauseListener = (fd: number): void => {
  unwatch(fd)
  paused.push(fd)
}

export const resumeListeners = (mayResume: (fd: number) => boolean): void => {
  // A listener that can't be watched yet, because the kernel lacks memory too, is retried later.
  paused = paused.filter(
    (fd) =>
      kind[fd] === kindOf.listener &&
      !(mayResume(fd) && (watch(fd, EPOLLIN | EPOLLEXCLUSIVE) >= 0 || S.errno() === S.EEXIST))
  )
}

export const hasPaused = (): boolean => paused.length > 0

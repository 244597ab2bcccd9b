// biome-ignore-all lint/style/noNonNullAssertion: every descriptor below maxDescriptors has its place in every table
/**
 * The bytes that a connection's direction has read and could not send yet. Under light traffic they are copied to a
 * buffer; under heavy traffic they stay in a pipe, through which the kernel moves pages without copying
 * (splice(2)). An idle direction has neither.
 */
import * as S from "../../linux/Syscalls.ts"
import { kindOf, maxDescriptors } from "../ThreadMessages.ts"
import { mayTakeInEachThread } from "./Budget.ts"
import { adopt, discard } from "./Epoll.ts"
import { memory } from "./Memory.ts"

/** Bytes held for the direction that begins at a descriptor: read, not yet sent. */
export const held = new Int32Array(maxDescriptors)

const readEnd = new Int32Array(maxDescriptors)
const writeEnd = new Int32Array(maxDescriptors)

/** The most that one splice moves: the size of a large pipe. */
const pipeSize = 1 << 20
/** An unprivileged user may have 64 MB of pipes (pipe-user-pages-soft); beyond that, each pipe holds two pages. */
const maxLarge = 16
const maxIdle = 32

const idle: Array<readonly [number, number]> = []
let pipes = 0
const created = memory(8)
const createdWords = new Int32Array(created.buffer)

export const hasPipe = (fd: number): boolean => readEnd[fd]! !== 0

/** `false` if none is available: connections have priority for descriptors. */
export const takePipe = (fd: number): boolean => {
  const pipe = idle.pop() ?? (mayHold(2) ? newPipe() : undefined)
  if (pipe === undefined) return false
  readEnd[fd] = pipe[0]
  writeEnd[fd] = pipe[1]
  return true
}

const newPipe = (): readonly [number, number] | undefined => {
  if (S.pipe2(created.address, S.NONBLOCK_CLOEXEC) < 0) return undefined
  const reader = createdWords[0]!
  const writer = createdWords[1]!
  if (!adopt(reader, kindOf.pipe, -1)) return void S.close(writer)
  if (!adopt(writer, kindOf.pipe, -1)) return void discard(reader)
  if (pipes++ < maxLarge) S.fcntl(writer, S.F_SETPIPE_SZ, pipeSize)
  return [reader, writer]
}

const mayHold = (more: number): boolean => mayTakeInEachThread(2 * pipes, more, performance.now())

export const givePipe = (fd: number): void => {
  const reader = readEnd[fd]!
  if (reader === 0) return
  const writer = writeEnd[fd]!
  readEnd[fd] = 0
  writeEnd[fd] = 0
  if (held[fd] === 0 && idle.length < maxIdle && mayHold(0)) return void idle.push([reader, writer])
  discard(reader)
  discard(writer)
  pipes--
}

/**
 * Moves the socket's data into its pipe, which must be empty: then `EAGAIN` refers to the socket, and the count is
 * exact.
 */
export const fill = (fd: number): number => {
  const moved = S.splice(fd, 0, writeEnd[fd]!, 0, pipeSize, S.SPLICE_MOVE_NONBLOCK)
  if (moved > 0) held[fd] = moved
  return moved
}

interface Copy {
  readonly buffer: ArrayBuffer
  readonly address: number
  readonly length: number
}

const copies = new Map<number, Copy>()

/** Holds bytes that could not be sent. */
export const keep = (fd: number, bytes: Uint8Array<ArrayBuffer>): void => {
  const buffer = bytes.slice().buffer
  copies.set(fd, { buffer, address: S.addressOf(buffer), length: bytes.length })
  held[fd] = bytes.length
}

/** Sends held bytes; returns the result of the system call. */
export const drain = (fd: number, to: number): number => {
  const copy = copies.get(fd)
  const sent =
    copy === undefined
      ? S.splice(readEnd[fd]!, 0, to, 0, held[fd]!, S.SPLICE_MOVE_NONBLOCK)
      : S.send(to, copy.address + copy.length - held[fd]!, held[fd]!, S.MSG_NOSIGNAL)
  if (sent > 0) {
    held[fd] = held[fd]! - sent
    if (held[fd] === 0 && copy !== undefined) copies.delete(fd)
  }
  return sent
}

/** Held bytes are lost with the connection. */
export const drop = (fd: number): void => {
  if (held[fd]! > 0) copies.delete(fd)
  givePipe(fd)
  held[fd] = 0
}

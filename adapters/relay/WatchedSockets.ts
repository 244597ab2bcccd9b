/**
 * The epoll instance that a relay's thread waits in, as the plugin's thread has reserved sockets added to it and taken out:
 * what a call waits for is done by the call. See epoll(7).
 */
import * as C from "../linux/Libc.ts"
import { ADD, dataAt, EPOLLEXCLUSIVE, EPOLLIN, eventWords, REMOVE } from "./EpollEvent.ts"
import { maxDescriptors, type Serving } from "./ThreadMessages.ts"

export class WatchedSockets {
  /** See `ThreadData.generations`. */
  readonly generations = new Uint16Array(new SharedArrayBuffer(maxDescriptors * 2))
  private readonly libc = C.libc()
  private readonly event = new Uint32Array(eventWords)
  private readonly eventBytes = new Uint8Array(this.event.buffer)
  private epoll = -1

  /** A new instance that watches nothing yet; below 0 where there is none. */
  open(): number {
    this.epoll = this.libc.epollCreate(C.SOCK_CLOEXEC)
    return this.epoll
  }

  close(): void {
    if (this.epoll >= 0) this.libc.close(this.epoll)
    this.epoll = -1
  }

  /** Why the socket can't be watched, if it can't. One that is watched stays so. */
  add({ fd, protocol }: Serving): string | undefined {
    if (this.epoll < 0) return undefined
    this.event[0] = protocol === "tcp" ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN
    this.event[dataAt] = fd
    this.event[dataAt + 1] = this.generations[fd] ?? 0
    const result = this.libc.epollControl(this.epoll, ADD, fd, this.eventBytes)
    if (result >= 0 || result === -C.EEXIST) return undefined
    return `its socket can't be watched: ${this.libc.errno("epoll_ctl", result).detail}`
  }

  /** Takes the socket out, if it is in. */
  remove(fd: number): void {
    if (this.epoll >= 0) this.libc.epollControl(this.epoll, REMOVE, fd, this.eventBytes)
  }

  /** What is known of the socket is known no more: its number may become another's. */
  forget(fd: number): void {
    this.generations[fd] = (this.generations[fd] ?? 0) + 1
  }
}

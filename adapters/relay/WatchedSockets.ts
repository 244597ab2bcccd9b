/**
 * The epoll instance that a relay's thread waits in. The plugin's thread itself adds reserved sockets and removes
 * them, so that a change has taken effect when the call returns. See epoll(7).
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

  /** Makes a new instance that watches nothing yet; negative on failure. */
  open(): number {
    this.epoll = this.libc.epollCreate(C.SOCK_CLOEXEC)
    return this.epoll
  }

  close(): void {
    if (this.epoll >= 0) this.libc.close(this.epoll)
    this.epoll = -1
  }

  /** Returns why the socket can't be watched, if it can't. Does nothing if it is watched already. */
  add({ fd, protocol }: Serving): string | undefined {
    if (this.epoll < 0) return undefined
    this.event[0] = protocol === "tcp" ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN
    this.event[dataAt] = fd
    this.event[dataAt + 1] = this.generations[fd] ?? 0
    const result = this.libc.epollControl(this.epoll, ADD, fd, this.eventBytes)
    if (result >= 0 || result === -C.EEXIST) return undefined
    return `its socket can't be watched: ${this.libc.errno("epoll_ctl", result).detail}`
  }

  /** Removes the socket, if it is watched. */
  remove(fd: number): void {
    if (this.epoll >= 0) this.libc.epollControl(this.epoll, REMOVE, fd, this.eventBytes)
  }

  /** Forgets the socket: its number may be reused. */
  forget(fd: number): void {
    this.generations[fd] = (this.generations[fd] ?? 0) + 1
  }
}

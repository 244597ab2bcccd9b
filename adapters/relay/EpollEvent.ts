/** `struct epoll_event` and the constants of epoll_ctl(2), for both sides of the relay: this file loads nothing. */

export const EPOLLIN = 0x1
export const EPOLLOUT = 0x4
export const EPOLLERR = 0x8
export const EPOLLHUP = 0x10
export const EPOLLRDHUP = 0x2000
/**
 * Several threads share a listener, and an event wakes one of them. Such an entry can't be changed, only removed
 * and added.
 */
export const EPOLLEXCLUSIVE = 1 << 28
export const EPOLLET = 1 << 31

export const ADD = 1
export const REMOVE = 2
export const MODIFY = 3

/** In 32-bit words; the structure is packed on x86-64 alone. */
export const eventWords = process.arch === "x64" ? 3 : 4
/** The offsets of the two words of data: the descriptor, and its generation. */
export const dataAt = process.arch === "x64" ? 1 : 2

/**
 * The native calls of a relay's thread, which take and return numbers. Memory is passed by address (see
 * `relay/thread/Memory.ts`); a negative result is a failure, and `errno()` right after it returns the reason. A
 * call costs 40 to 50 ns besides the kernel's work; an array instead of an address costs 25 ns more.
 *
 * Only those threads import this file: importing it loads the C library.
 */
import { workerData } from "node:worker_threads"
import { koffi as load } from "./Koffi.ts"

export * from "./Constants.ts"

const { loadedBy } = workerData as { readonly loadedBy: string }
const koffi = load(loadedBy)
const library = koffi.load(null)

/** Addresses fit in 47 bits, so a number holds them exactly. */
const pointer = "int64_t"
const size = "int64_t"

type Call = (...numbers: ReadonlyArray<number>) => number
const native = (name: string, ...parameters: ReadonlyArray<string>): Call =>
  library.func(name, "int", [...parameters]) as Call

export const epoll_ctl = native("epoll_ctl", "int", "int", "int", pointer)
export const epoll_wait = native("epoll_wait", "int", pointer, "int", "int")
export const socket = native("socket", "int", "int", "int")
export const accept4 = native("accept4", "int", pointer, pointer, "int")
export const connect = native("connect", "int", pointer, "int")
export const getsockname = native("getsockname", "int", pointer, pointer)
export const getpeername = native("getpeername", "int", pointer, pointer)
export const getsockopt = native("getsockopt", "int", "int", "int", pointer, pointer)
export const setsockopt = native("setsockopt", "int", "int", "int", pointer, "int")
export const shutdown = native("shutdown", "int", "int")
export const close = native("close", "int")
export const recv = native("recv", "int", pointer, size, "int")
export const send = native("send", "int", pointer, size, "int")
export const read = native("read", "int", pointer, size)
export const splice = native("splice", "int", pointer, "int", pointer, size, "uint32_t")
export const pipe2 = native("pipe2", pointer, "int")
/** Variadic in C; on x86-64 and AArch64 an integer is passed there as in any other call. */
export const fcntl = native("fcntl", "int", "int", "int")
export const recvmmsg = native("recvmmsg", "int", pointer, "uint32_t", "int", pointer)
export const sendmsg = native("sendmsg", "int", pointer, "int")

/** The address of a buffer's memory, valid for as long as the caller keeps the buffer alive. */
export const addressOf = (buffer: ArrayBuffer): number => Number(koffi.address(new Uint8Array(buffer)))

/**
 * The calling thread's `errno`, read from its memory: a call that returns it costs 24 ns more. The runtime may
 * overwrite it in between, for instance while it compiles (seen: `EAGAIN` after a connect(2) in progress). So where
 * an errno would end a connection or flow, repeat the call and act on its second failure.
 */
const errnoView = new Int32Array(koffi.view(library.func("__errno_location", "void *", [])(), 4))
export const errno = (): number => errnoView[0] ?? 0

export const EIO = 5
export const EISCONN = 106
export const EALREADY = 114
export const EINPROGRESS = 115

/** `SOCK_NONBLOCK | SOCK_CLOEXEC`, which are also `O_NONBLOCK | O_CLOEXEC`. */
export const NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
export const SHUT_WR = 1

export const IPPROTO_ICMP = 1
export const SOL_RAW = 255
export const ICMP_FILTER = 1
/** For IPv4 and for IPv6. */
export const SO_ORIGINAL_DST = 80
export const IPPROTO_UDP = 17
export const UDP_SEGMENT = 103
export const IPV6_PKTINFO = 50
export const IPPROTO_ICMPV6 = 58
export const ICMP6_FILTER = 1

export const SPLICE_MOVE_NONBLOCK = 3
export const F_SETPIPE_SZ = 1031

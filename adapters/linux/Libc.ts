/**
 * The C library, as far as this package calls it outside the relay's threads (see `Koffi.ts`).
 * A call takes numbers and byte arrays, and returns what the C function returns, or the negated `errno`.
 * Constants are those of Linux on x86-64 and AArch64, which are equal but for the number of bpf(2).
 */
import { getSystemErrorName } from "node:util"
import { Schema } from "effect"
import { koffi as loadKoffi } from "./Koffi.ts"

/** A system call that failed; `code` is the name of the `errno`, `detail` the C library's text for it. */
export class Errno extends Schema.TaggedError<Errno>()("Errno", {
  syscall: Schema.String,
  errno: Schema.Number,
  code: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.syscall}: ${this.detail}`
  }
}

export interface Libc {
  readonly socket: (domain: number, type: number, protocol: number) => number
  readonly bind: (fd: number, address: Uint8Array, length: number) => number
  readonly listen: (fd: number, backlog: number) => number
  readonly setsockopt: (fd: number, level: number, name: number, value: Uint8Array, length: number) => number
  /** The call fills `value`; `length` holds its size (uint32), and the call updates it. */
  readonly getsockopt: (
    fd: number,
    level: number,
    name: number,
    value: Uint8Array,
    length: Uint8Array
  ) => number
  /**
   * The call fills `address` with the socket's own address; `length` holds its size (uint32), and the call updates
   * it.
   */
  readonly getsockname: (fd: number, address: Uint8Array, length: Uint8Array) => number
  readonly connect: (fd: number, address: Uint8Array, length: number) => number
  /** Accepts a waiting connection, with these flags on its socket. Does not return the client's address. */
  readonly accept: (fd: number, flags: number) => number
  /** `message` is a `struct msghdr`, whose pointers are addresses of arrays: see `addressOf`. */
  readonly sendmsg: (fd: number, message: Uint8Array, flags: number) => number
  readonly recvmsg: (fd: number, message: Uint8Array, flags: number) => number
  /** Duplicates a descriptor, close-on-exec. */
  readonly duplicate: (fd: number) => number
  readonly send: (fd: number, bytes: Uint8Array, length: number, flags: number) => number
  /**
   * The call fills `address` with the sender's; `addressLength` holds its size (uint32), and the call updates it.
   */
  readonly recvfrom: (
    fd: number,
    bytes: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: Uint8Array
  ) => number
  /**
   * `send` and `recvfrom` on koffi's thread pool, for calls that keep the kernel busy for long, so that they don't
   * block the event loop. The caller must not touch the arrays until the call has returned.
   */
  readonly sendLater: (fd: number, bytes: Uint8Array, length: number, flags: number) => Promise<number>
  readonly recvfromLater: (
    fd: number,
    bytes: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: Uint8Array
  ) => Promise<number>
  readonly close: (fd: number) => number
  /** An eventfd to wake a waiting thread by: readable once 8 bytes, a number, were written to it. */
  readonly eventfd: (initial: number, flags: number) => number
  readonly write: (fd: number, bytes: Uint8Array, length: number) => number
  readonly epollCreate: (flags: number) => number
  /** `event` is a `struct epoll_event`. */
  readonly epollControl: (epoll: number, operation: number, fd: number, event: Uint8Array) => number
  /** The index of a network interface; `name` ends in a zero byte. No interface has index 0. */
  readonly ifNameToIndex: (name: Uint8Array) => number
  /** bpf(2); `-ENOSYS` on an architecture whose number for it is not known here. */
  readonly bpf: (command: number, attributes: Uint8Array, length: number) => number
  /** The address of an array's bytes, valid for as long as the caller keeps the array alive. */
  readonly addressOf: (bytes: Uint8Array) => bigint
  /** Copies bytes to memory that stays allocated for the life of the process, and returns the copy's address. */
  readonly pin: (bytes: Uint8Array) => bigint
  /** Calls back on the event loop whenever `fd` is readable, until the caller calls the returned function. */
  readonly onReadable: (fd: number, callback: () => void) => () => void
  /** The failure that a negative result stands for. */
  readonly errno: (syscall: string, result: number) => Errno
}

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_SEQPACKET = 5
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
export const SO_REUSEADDR = 2
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_KEEPALIVE = 9
export const SO_LINGER = 13
export const SO_PEERCRED = 17
export const SO_ATTACH_FILTER = 26
export const SO_DETACH_FILTER = 27
export const SO_SNDBUFFORCE = 32
export const SO_RCVBUFFORCE = 33
export const SO_PROTOCOL = 38
export const SO_ATTACH_BPF = 50
export const IPPROTO_IP = 0
export const IP_PKTINFO = 8
export const IP_MINTTL = 21
export const IPPROTO_TCP = 6
export const TCP_NODELAY = 1
export const TCP_KEEPIDLE = 4
export const TCP_KEEPINTVL = 5
export const IPPROTO_IPV6 = 41
export const IPV6_V6ONLY = 26
export const IPV6_RECVPKTINFO = 49
export const IPV6_MINHOPCOUNT = 73
export const SOL_NETLINK = 270
export const SCM_RIGHTS = 1
export const MSG_CTRUNC = 0x8
export const MSG_TRUNC = 0x20
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000
export const MSG_CMSG_CLOEXEC = 0x40000000

const F_DUPFD_CLOEXEC = 1030

export const EPERM = 1
export const ENOENT = 2
export const EINTR = 4
export const EAGAIN = 11
export const ENOMEM = 12
export const EACCES = 13
export const EBUSY = 16
export const EEXIST = 17
export const EINVAL = 22
export const ENFILE = 23
export const EMFILE = 24
export const EPIPE = 32
export const ENAMETOOLONG = 36
export const ENOSYS = 38
export const ENOTEMPTY = 39
export const EMSGSIZE = 90
export const EPROTONOSUPPORT = 93
export const ESOCKTNOSUPPORT = 94
export const EOPNOTSUPP = 95
export const EAFNOSUPPORT = 97
export const EADDRINUSE = 98
export const EADDRNOTAVAIL = 99
export const ECONNRESET = 104
export const ENOBUFS = 105
export const ECONNREFUSED = 111

/** Whether the host's byte order is little-endian, as the flag of `DataView`'s methods. */
export const hostLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/** The C library, loaded at first use, so that commands that don't need it start without it. */
export const libc = (): Libc => {
  loaded ??= load()
  return loaded
}

let loaded: Libc | undefined

const send = "intptr_t send(int fd, const void *bytes, size_t length, int flags)"
const recvfrom =
  "intptr_t recvfrom(int fd, void *bytes, size_t length, int flags, void *address, void *addressLength)"

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: mostly one line for each function of the C library.
const load = (): Libc => {
  const koffi = loadKoffi()
  const library = koffi.load(null)
  const strerror = library.func("const char *strerror(int errnum)")

  const functionOf = (prototype: string) =>
    library.func(prototype) as {
      (...parameters: ReadonlyArray<unknown>): number
      readonly async: (...parameters: ReadonlyArray<unknown>) => void
    }

  const native = (prototype: string) => {
    const call = functionOf(prototype)
    return (...parameters: ReadonlyArray<unknown>): number => {
      const result = call(...parameters)
      return result < 0 ? -koffi.errno() : result
    }
  }

  const nativeLater = (prototype: string) => {
    const call = functionOf(prototype)
    return (...parameters: ReadonlyArray<unknown>): Promise<number> =>
      new Promise((resolve, reject) =>
        call.async(...parameters, (error: Error | null, result: number) => {
          if (error !== null) reject(error)
          else resolve(result < 0 ? -koffi.errno() : result)
        })
      )
  }

  const syscall = native("long syscall(long number, int command, void *attributes, uint32_t length)")
  const accept = native("int accept4(int fd, void *address, void *length, int flags)")
  // Variadic in C; on x86-64 and AArch64 an integer is passed there as in any other call.
  const fcntl = native("int fcntl(int fd, int command, int minimum)")
  const bpfNumber = { x64: 321, arm64: 280 }[process.arch as string]
  const nameToIndex = library.func("uint32_t if_nametoindex(const void *name)")

  return {
    socket: native("int socket(int domain, int type, int protocol)"),
    bind: native("int bind(int fd, const void *address, uint32_t length)"),
    listen: native("int listen(int fd, int backlog)"),
    setsockopt: native("int setsockopt(int fd, int level, int name, const void *value, uint32_t length)"),
    getsockopt: native("int getsockopt(int fd, int level, int name, void *value, void *length)"),
    getsockname: native("int getsockname(int fd, void *address, void *length)"),
    connect: native("int connect(int fd, const void *address, uint32_t length)"),
    accept: (fd, flags) => accept(fd, null, null, flags),
    sendmsg: native("intptr_t sendmsg(int fd, const void *message, int flags)"),
    recvmsg: native("intptr_t recvmsg(int fd, void *message, int flags)"),
    duplicate: (fd) => fcntl(fd, F_DUPFD_CLOEXEC, 3),
    send: native(send),
    recvfrom: native(recvfrom),
    sendLater: nativeLater(send),
    recvfromLater: nativeLater(recvfrom),
    close: native("int close(int fd)"),
    eventfd: native("int eventfd(uint32_t initial, int flags)"),
    write: native("intptr_t write(int fd, const void *bytes, size_t length)"),
    epollCreate: native("int epoll_create1(int flags)"),
    epollControl: native("int epoll_ctl(int epoll, int operation, int fd, void *event)"),
    ifNameToIndex: (name) => {
      const index: number = nameToIndex(name)
      return index === 0 ? -koffi.errno() : index
    },
    bpf: (command, attributes, length) =>
      bpfNumber === undefined ? -ENOSYS : syscall(bpfNumber, command, attributes, length),
    addressOf: (bytes) => koffi.address(bytes),
    pin: (bytes) => {
      const pointer = koffi.alloc("uint8_t", Math.max(bytes.length, 8))
      new Uint8Array(koffi.view(pointer, bytes.length)).set(bytes)
      return koffi.address(pointer)
    },
    onReadable: (fd, callback) => {
      const handle = koffi.node.poll(fd, { readable: true }, callback)
      handle.unref()
      return () => handle.close()
    },
    errno: (name, result) => {
      const errno = -result
      const text: string = strerror(errno)
      return new Errno({
        syscall: name,
        errno,
        code: getSystemErrorName(result),
        detail: text.charAt(0).toLowerCase() + text.slice(1)
      })
    }
  }
}

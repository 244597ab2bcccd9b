/**
 * The C library, as far as this package calls it outside the relay's threads (see `Koffi.ts`).
 * A call takes numbers and byte arrays, and returns what the C function returns, or the negated `errno`.
 */
import { getSystemErrorName } from "node:util"
import { Schema } from "effect"
import { ENOSYS, F_DUPFD_CLOEXEC } from "./Constants.ts"
import { koffi as loadKoffi } from "./Koffi.ts"

export * from "./Constants.ts"

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

/** Whether the host's byte order is little-endian, as the flag of `DataView`'s methods. */
export const hostLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/** A C `int` or `socklen_t`. */
export const int32 = (value: number): Uint8Array => new Uint8Array(Int32Array.of(value).buffer)

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

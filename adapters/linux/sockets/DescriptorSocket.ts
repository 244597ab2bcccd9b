/**
 * Unix sockets that carry packets with descriptors in them (unix(7): SOCK_SEQPACKET, SCM_RIGHTS, SO_PEERCRED;
 * cmsg(3)), which Node lacks. Transports the packets; does not interpret them.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect, Scope } from "effect"
import { removeOwnFile, untilRemoved } from "../../node/SocketFile.ts"
import * as C from "../Libc.ts"
import { unixAddress } from "./SocketAddress.ts"

/** Maximum number of descriptors in one packet: `SCM_MAX_FD`. */
export const maxDescriptorsPerPacket = 253

/** A packet is never empty: an empty one looks the same as the end of the connection. */
export interface Packet {
  readonly bytes: Uint8Array
  readonly fds: ReadonlyArray<number>
}

/** The process on the other side, as the kernel knows it. */
export interface Peer {
  readonly pid: number
  readonly uid: number
}

export interface DescriptorSocket {
  /** For a listener, the process that connected; for a client, the process that listens. */
  readonly peer: Peer
  /** The sender keeps its descriptors. Waits while the other side does not read. */
  readonly send: (packet: Packet) => Effect.Effect<void, C.Errno>
  /**
   * The next packet, whose descriptors the receiver owns from now on; `undefined` once the other side has closed.
   */
  readonly receive: Effect.Effect<Packet | undefined, C.Errno>
}

const socketType = C.SOCK_SEQPACKET | C.SOCK_CLOEXEC | C.SOCK_NONBLOCK

/**
 * Listens at a path, mode 0600, until the scope closes; replaces a socket that is there, and listens again where
 * another process removes it. Returns an effect that waits for the next client, until the scope of the waiting closes.
 */
export const listenForDescriptors = (
  path: string
): Effect.Effect<Effect.Effect<DescriptorSocket, C.Errno, Scope.Scope>, C.Errno, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Scope.Scope
    let listening = yield* listen(path)
    const again = Effect.map(Scope.provide(listen(path), scope), (next) => {
      listening = next
    })
    const accept: Effect.Effect<DescriptorSocket, C.Errno, Scope.Scope> = Effect.suspend(() =>
      Effect.raceFirst(
        acceptOn(listening.fd),
        untilRemoved(path, listening.inode).pipe(
          Effect.andThen(again),
          Effect.andThen(Effect.suspend(() => accept))
        )
      )
    )
    return accept
  })

const listen = (
  path: string
): Effect.Effect<{ readonly fd: number; readonly inode: number }, C.Errno, Scope.Scope> =>
  Effect.gen(function* () {
    const libc = C.libc()
    const fd = yield* opened(libc)
    const unfinished = Path.join(Path.dirname(path), `.${process.pid}.${Path.basename(path)}`)
    yield* attempt(libc, "unlink", () => Fs.rmSync(unfinished, { force: true }))
    yield* bound(libc, fd, unfinished)
    const inode = yield* Effect.acquireRelease(
      attempt(libc, "rename", () => {
        Fs.renameSync(unfinished, path)
        return Fs.statSync(path).ino
      }),
      (own) => Effect.sync(() => removeOwnFile(path, own))
    )
    return { fd, inode }
  })

const attempt = <A>(libc: C.Libc, syscall: string, run: () => A): Effect.Effect<A, C.Errno> =>
  Effect.try({
    try: run,
    catch: (error) => libc.errno(syscall, (error as NodeJS.ErrnoException).errno ?? -C.EINVAL)
  })

const acceptOn = (fd: number): Effect.Effect<DescriptorSocket, C.Errno, Scope.Scope> =>
  Effect.suspend(() => {
    const libc = C.libc()
    return Effect.map(
      Effect.acquireRelease(
        readable(libc, fd, "accept4", () => libc.accept(fd, C.SOCK_CLOEXEC | C.SOCK_NONBLOCK)),
        (accepted) => Effect.sync(() => void libc.close(accepted)),
        { interruptible: true }
      ),
      (accepted) => descriptorSocket(libc, accepted)
    )
  })

/** Connects to the process that listens at a path, until the scope closes. */
export const connectForDescriptors = (path: string): Effect.Effect<DescriptorSocket, C.Errno, Scope.Scope> =>
  Effect.gen(function* () {
    const libc = C.libc()
    const address = unixAddress(path)
    if (address === undefined) return yield* libc.errno("connect", -C.ENAMETOOLONG)
    const fd = yield* opened(libc)
    const result = libc.connect(fd, address, address.length)
    return result < 0 ? yield* libc.errno("connect", result) : descriptorSocket(libc, fd)
  })

/** Closed with the scope. */
const opened = (libc: C.Libc) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const fd = libc.socket(C.AF_UNIX, socketType, 0)
      return fd < 0 ? Effect.fail(libc.errno("socket", fd)) : Effect.succeed(fd)
    }),
    (fd) => Effect.sync(() => void libc.close(fd))
  )

const bound = (libc: C.Libc, fd: number, path: string): Effect.Effect<void, C.Errno> =>
  Effect.suspend(() => {
    const address = unixAddress(path)
    if (address === undefined) return Effect.fail(libc.errno("bind", -C.ENAMETOOLONG))
    const umask = process.umask(0o177)
    try {
      const result = libc.bind(fd, address, address.length)
      if (result < 0) return Effect.fail(libc.errno("bind", result))
    } finally {
      process.umask(umask)
    }
    const result = libc.listen(fd, 16)
    return result < 0 ? Effect.fail(libc.errno("listen", result)) : Effect.void
  })

const descriptorSocket = (libc: C.Libc, fd: number): DescriptorSocket => ({
  peer: peerOf(libc, fd),
  send: Effect.fnUntraced(function* ({ bytes, fds }) {
    const message = new MessageHeader(bytes, fds)
    while (true) {
      const result = libc.sendmsg(fd, message.header(libc), C.MSG_NOSIGNAL)
      if (result >= 0) return
      if (result !== -C.EAGAIN && result !== -C.EINTR) return yield* libc.errno("sendmsg", result)
      yield* Effect.sleep(retryMillis)
    }
  }),
  receive: Effect.suspend(() => {
    const message = new MessageHeader(new Uint8Array(maxPacketBytes), undefined)
    const attempt = () => {
      const result = libc.recvmsg(fd, message.header(libc), C.MSG_CMSG_CLOEXEC)
      // The other side closed with unread data of ours.
      return result === -C.ECONNRESET ? 0 : result
    }
    return Effect.flatMap(readable(libc, fd, "recvmsg", attempt), (length) => {
      const fds = message.descriptors()
      if ((message.flags & (C.MSG_TRUNC | C.MSG_CTRUNC)) === 0)
        return Effect.succeed(length === 0 ? undefined : { bytes: message.bytes.slice(0, length), fds })
      // No descriptor left for those of the packet, or a packet that is not ours.
      for (const received of fds) libc.close(received)
      return Effect.fail(
        libc.errno("recvmsg", (message.flags & C.MSG_CTRUNC) === 0 ? -C.EMSGSIZE : -C.EMFILE)
      )
    })
  })
})

/** Larger than any packet of ours: some 250 sockets by name. */
const maxPacketBytes = 1 << 16

/** The delay before the next attempt while the other side does not read. */
const retryMillis = 5

/** Makes the call, and repeats it whenever the socket becomes readable, until it returns no `EAGAIN` or `EINTR`. */
const readable = (
  libc: C.Libc,
  fd: number,
  syscall: string,
  attempt: () => number
): Effect.Effect<number, C.Errno> =>
  Effect.callback<number, C.Errno>((resume) => {
    let stop: (() => void) | undefined
    const look = () => {
      const result = attempt()
      if (result === -C.EAGAIN || result === -C.EINTR) return false
      stop?.()
      stop = undefined
      resume(result < 0 ? Effect.fail(libc.errno(syscall, result)) : Effect.succeed(result))
      return true
    }
    if (!look()) stop = libc.onReadable(fd, look)
    return Effect.sync(() => stop?.())
  })

/** `struct ucred`. */
const peerOf = (libc: C.Libc, fd: number): Peer => {
  const credentials = new Uint8Array(12)
  libc.getsockopt(fd, C.SOL_SOCKET, C.SO_PEERCRED, credentials, C.int32(credentials.length))
  const view = new DataView(credentials.buffer)
  return { pid: view.getInt32(0, C.hostLittleEndian), uid: view.getUint32(4, C.hostLittleEndian) }
}

const sizeOfControlHeader = 16

/** `struct msghdr`, with one `struct iovec` and one `struct cmsghdr`, on 64-bit machines. */
class MessageHeader {
  readonly bytes: Uint8Array
  private readonly control: Uint8Array
  private readonly iovec = new Uint8Array(16)
  private readonly head = new Uint8Array(56)

  /** With descriptors to send; or `undefined` to receive as many as arrive. */
  constructor(bytes: Uint8Array, fds: ReadonlyArray<number> | undefined) {
    this.bytes = bytes
    const count = fds?.length ?? maxDescriptorsPerPacket
    const length = count === 0 ? 0 : sizeOfControlHeader + count * 4
    this.control = new Uint8Array(Math.ceil(length / 8) * 8)
    if (fds === undefined || count === 0) return
    const view = new DataView(this.control.buffer)
    view.setBigUint64(0, BigInt(length), C.hostLittleEndian)
    view.setInt32(8, C.SOL_SOCKET, C.hostLittleEndian)
    view.setInt32(12, C.SCM_RIGHTS, C.hostLittleEndian)
    fds.forEach((fd, index) => {
      view.setInt32(sizeOfControlHeader + index * 4, fd, C.hostLittleEndian)
    })
  }

  /** Fill it in before each call: a receive overwrites it. */
  header(libc: C.Libc): Uint8Array {
    const iovec = new DataView(this.iovec.buffer)
    iovec.setBigUint64(0, libc.addressOf(this.bytes), C.hostLittleEndian)
    iovec.setBigUint64(8, BigInt(this.bytes.length), C.hostLittleEndian)
    const view = new DataView(this.head.buffer)
    this.head.fill(0)
    view.setBigUint64(16, libc.addressOf(this.iovec), C.hostLittleEndian)
    view.setBigUint64(24, 1n, C.hostLittleEndian)
    if (this.control.length > 0) {
      view.setBigUint64(32, libc.addressOf(this.control), C.hostLittleEndian)
      view.setBigUint64(40, BigInt(this.control.length), C.hostLittleEndian)
    }
    return this.head
  }

  get flags(): number {
    return new DataView(this.head.buffer).getInt32(48, C.hostLittleEndian)
  }

  descriptors(): ReadonlyArray<number> {
    const filled = Number(new DataView(this.head.buffer).getBigUint64(40, C.hostLittleEndian))
    if (filled < sizeOfControlHeader) return []
    const view = new DataView(this.control.buffer)
    const length = Number(view.getBigUint64(0, C.hostLittleEndian))
    if (
      view.getInt32(8, C.hostLittleEndian) !== C.SOL_SOCKET ||
      view.getInt32(12, C.hostLittleEndian) !== C.SCM_RIGHTS
    )
      return []
    return Array.from({ length: (length - sizeOfControlHeader) >> 2 }, (_, index) =>
      view.getInt32(sizeOfControlHeader + index * 4, C.hostLittleEndian)
    )
  }
}

/**
 * Sends one datagram to a Unix socket, as systemd receives notifications (unix(7), sd_notify(3)): Node has no such
 * sockets.
 */
import { Effect } from "effect"
import * as C from "../Libc.ts"
import { unixAddress } from "./SocketAddress.ts"

/**
 * `path` as in `sockaddr_un`: a path, or a name in the abstract namespace if it begins with a zero byte. Never
 * waits: fails if the receiver's queue is full.
 */
export const sendUnixDatagram = (path: string, bytes: Uint8Array): Effect.Effect<void, C.Errno> =>
  Effect.suspend(() => {
    const libc = C.libc()
    const address = unixAddress(path)
    if (address === undefined) return Effect.fail(libc.errno("connect", -C.ENAMETOOLONG))
    const fd = libc.socket(C.AF_UNIX, C.SOCK_DGRAM | C.SOCK_CLOEXEC | C.SOCK_NONBLOCK, 0)
    if (fd < 0) return Effect.fail(libc.errno("socket", fd))
    try {
      const connected = libc.connect(fd, address, address.length)
      if (connected < 0) return Effect.fail(libc.errno("connect", connected))
      const sent = libc.send(fd, bytes, bytes.length, 0)
      return sent < 0 ? Effect.fail(libc.errno("send", sent)) : Effect.void
    } finally {
      libc.close(fd)
    }
  })

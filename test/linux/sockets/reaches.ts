import { createSocket } from "node:dgram"
import { connect, type TcpNetConnectOpts } from "node:net"
import { Effect } from "effect"
import { libc, MSG_DONTWAIT } from "../../../adapters/linux/Libc.ts"
import type { HostSocket } from "../../../src/ports/HostSockets.ts"
import { patienceMillis } from "../../lab/patience.ts"

/** Whether a packet from this address reaches the socket: a handshake, or a datagram to read. */
export const reaches = (
  socket: HostSocket,
  address: string,
  isWanted = false,
  from?: string
): Effect.Effect<boolean> =>
  socket.protocol === "tcp"
    ? connects(
        { host: address, port: socket.port, ...(from === undefined ? {} : { localAddress: from }) },
        isWanted ? patienceMillis : 200
      )
    : receives(socket, address, from)

const connects = (to: TcpNetConnectOpts, duration: number) =>
  Effect.callback<boolean>((resume) => {
    const client = connect(to)
    client.on("connect", () => resume(Effect.succeed(true)))
    client.on("error", () => resume(Effect.succeed(false)))
    return Effect.sync(() => client.destroy())
  }).pipe(Effect.timeoutOrElse({ duration, orElse: () => Effect.succeed(false) }))

const receives = (socket: HostSocket, address: string, from?: string) =>
  Effect.callback<boolean>((resume) => {
    const client = createSocket(address.includes(":") ? "udp6" : "udp4")
    client.bind(0, from)
    client.send("ping", socket.port, address, () => {
      client.close()
      const bytes = new Uint8Array(16)
      const received = libc().recvfrom(
        socket.fd,
        bytes,
        16,
        MSG_DONTWAIT,
        new Uint8Array(28),
        Uint8Array.of(28, 0, 0, 0)
      )
      resume(Effect.succeed(received === 4))
    })
  })

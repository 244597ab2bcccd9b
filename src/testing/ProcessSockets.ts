/** The sockets of one process of a host: the system closes them with it, unless another one has taken them over. */
import { Effect } from "effect"
import { type HostSocket, HostSockets } from "../ports/HostSockets.ts"

export const processSockets = (service: HostSockets["Service"]) => {
  const open = new Set<HostSocket>()
  return {
    service: HostSockets.of({
      ...service,
      open: (protocol, host, port) =>
        Effect.map(service.open(protocol, host, port), (socket) => {
          open.add(socket)
          return socket
        }),
      close: (socket) => {
        open.delete(socket)
        return service.close(socket)
      },
      // They are its own from the moment that they are received, whatever becomes of them.
      adopt: (sockets) =>
        Effect.suspend(() => {
          for (const socket of sockets) open.add(socket)
          return service.adopt(sockets)
        })
    }),
    closeAll: Effect.suspend(() => Effect.forEach([...open], service.close, { discard: true })),
    handOver: (): ReadonlyArray<HostSocket> => {
      const all = [...open]
      open.clear()
      return all
    }
  }
}

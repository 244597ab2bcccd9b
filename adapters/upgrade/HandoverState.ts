/** What one process hands over to the next: open descriptors, each with its description. */
import * as Fs from "node:fs"
import { Array as Arr, Effect, Result } from "effect"
import type { HostSocket } from "../../src/ports/HostSockets.ts"
import { parseAddress } from "../../src/protocol/Address.ts"
import { type DescriptorSocket, maxDescriptorsPerPacket } from "../linux/sockets/DescriptorSocket.ts"
import { send } from "./Channel.ts"
import type { AdoptedConnection, Details, Place } from "./ListenerHandoff.ts"
import type { HandoverError, Message, MessageOf } from "./Messages.ts"

export interface KeptListener extends Details {
  readonly place: Place
  readonly fd: number
}

export interface KeptConnection extends AdoptedConnection {
  readonly place: Place
}

export interface HandoverState {
  readonly sockets: ReadonlyArray<HostSocket>
  readonly listeners: ReadonlyArray<KeptListener>
  readonly connections: ReadonlyArray<KeptConnection>
  /** The descriptor of the lock on the kernel's table, see `NamespaceLock`. */
  readonly lock: number | undefined
}

/** With the longest places and names of sessions these fit into a packet. */
const connectionsPerPacket = 128

/** Sends all of it; the descriptors stay open here, too. */
export const sendState = (
  socket: DescriptorSocket,
  { sockets, listeners, connections, lock }: HandoverState
): Effect.Effect<void, HandoverError> => {
  const sendAll = <A extends { readonly fd: number }>(
    all: ReadonlyArray<A>,
    message: (part: ReadonlyArray<A>) => Message,
    most = maxDescriptorsPerPacket
  ) =>
    Effect.forEach(
      Arr.chunksOf(all, most),
      (part) =>
        send(
          socket,
          message(part),
          part.map(({ fd }) => fd)
        ),
      { discard: true }
    )
  return Effect.all(
    [
      sendAll(sockets, (part) => ({
        _tag: "Sockets",
        items: part.map(({ protocol, host, port }) => ({ protocol, host: host.key, port }))
      })),
      sendAll(listeners, (part) => ({ _tag: "Listeners", items: part.map(({ fd: _, ...item }) => item) })),
      sendAll(
        connections,
        (part) => ({ _tag: "Connections", items: part.map(({ fd: _, ...item }) => item) }),
        connectionsPerPacket
      ),
      lock === undefined ? Effect.void : send(socket, { _tag: "Lock", items: [{}] }, [lock]),
      send(socket, { _tag: "Handed" })
    ],
    { discard: true }
  )
}

/** What was received so far; this process owns the descriptors. */
export class StateReceiver {
  readonly state = {
    sockets: [] as Array<HostSocket>,
    listeners: [] as Array<KeptListener>,
    connections: [] as Array<KeptConnection>,
    lock: undefined as number | undefined
  }
  private readonly fds: Array<number> = []

  /** Adds the content of one message; returns what is wrong with it, if anything. */
  add(
    message: MessageOf<"Sockets" | "Listeners" | "Connections" | "Lock">,
    fds: ReadonlyArray<number>
  ): string | undefined {
    this.fds.push(...fds)
    if (message.items.length !== fds.length)
      return `${message.items.length} ${message._tag.toLowerCase()} came with ${fds.length} descriptors`
    const fdAt = (index: number) => fds[index] ?? -1
    switch (message._tag) {
      case "Sockets":
        for (const [index, { protocol, host, port }] of message.items.entries()) {
          const address = parseAddress(host)
          if (Result.isFailure(address)) return `${host}: ${address.failure}`
          this.state.sockets.push({ protocol, host: address.success, port, fd: fdAt(index) })
        }
        return undefined
      case "Listeners":
        message.items.forEach((item, index) => void this.state.listeners.push({ ...item, fd: fdAt(index) }))
        return undefined
      case "Connections":
        message.items.forEach((item, index) => void this.state.connections.push({ ...item, fd: fdAt(index) }))
        return undefined
      case "Lock":
        this.state.lock = fds[0]
        return undefined
    }
  }

  closeAll(): void {
    for (const fd of this.fds.splice(0)) Fs.closeSync(fd)
  }
}

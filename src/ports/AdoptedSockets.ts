/** Sockets that were taken over and not yet claimed, by the frontend they are bound to or cover. */
import { type Address, unspecified } from "../protocol/Address.ts"
import type { PublishedPort } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"

export class AdoptedSockets<Socket extends PublishedPort> {
  private readonly byPlace = new Map<string, Socket>()

  add(socket: Socket): void {
    this.byPlace.set(placeOf(socket.protocol, socket.host, socket.port), socket)
  }

  /**
   * Returns, once, the socket bound to this very frontend, otherwise that of the unspecified address, which covers
   * it.
   */
  claim(protocol: Protocol, host: Address, port: number): Socket | undefined {
    if (this.byPlace.size === 0) return undefined
    return (
      this.take(placeOf(protocol, host, port)) ?? this.take(placeOf(protocol, unspecified(host.family), port))
    )
  }

  /** Returns the sockets that were not claimed; later claims find nothing. */
  rest(): ReadonlyArray<Socket> {
    const left = [...this.byPlace.values()]
    this.byPlace.clear()
    return left
  }

  private take(place: string): Socket | undefined {
    const found = this.byPlace.get(place)
    this.byPlace.delete(place)
    return found
  }
}

const placeOf = (protocol: Protocol, { key }: Address, port: number): string => `${protocol} ${key} ${port}`

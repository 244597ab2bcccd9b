/** Sockets that were taken over and that nobody has asked for yet: found by the frontend they are bound to, or that they cover. */
import { type Address, unspecified } from "../protocol/Address.ts"
import type { Protocol } from "../protocol/Protocol.ts"

interface Bound {
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
}

export class AdoptedSockets<Socket extends Bound> {
  private readonly byPlace = new Map<string, Socket>()

  add(socket: Socket): void {
    this.byPlace.set(placeOf(socket.protocol, socket.host, socket.port), socket)
  }

  /** The one bound to this very frontend, else the one of the unspecified address, which covers it; once. */
  claim(protocol: Protocol, host: Address, port: number): Socket | undefined {
    if (this.byPlace.size === 0) return undefined
    return (
      this.take(placeOf(protocol, host, port)) ?? this.take(placeOf(protocol, unspecified(host.family), port))
    )
  }

  /** Those that were not claimed; from now on nothing is. */
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

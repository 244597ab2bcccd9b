/**
 * The packets of a published port, hook by hook: those of a client's new connection, and of the replies to it.
 * Pure.
 *
 * A redirected packet is addressed to the host until it is translated, and from then on forwarded to the backend. A
 * relayed one is addressed to the host throughout, and the relay's connection to the backend starts at the host.
 */
import type { Endpoint, PublishedPort } from "../../src/protocol/PortBinding.ts"
import type { Hook, Packet, Place } from "./Packet.ts"

export interface Published extends PublishedPort {
  readonly backend: Endpoint
  /** How its traffic reaches the backend. */
  readonly traffic: "redirected" | "relayed" | "routed"
  /** The address that a client sends to; `undefined` if no particular one is known. */
  readonly spokenTo: Place
  /** The interface that outside clients come in by, and the one towards the backend. */
  readonly outside: string
  readonly inside: string
  /** Whether the clients are containers on another bridge, with `outside` as that bridge. */
  readonly neighbour: boolean
  /** A hypothetical mapping: assume the rules that the Engine adds for a mapping it makes. */
  readonly imagined: boolean
}

/** A packet at one hook. */
export interface Hop {
  readonly hook: Hook
  readonly packet: Packet
  /** The priorities of the chains that see it so, the lower bound inclusive; all if absent. */
  readonly from?: number
  readonly to?: number
}

export type PacketPath = ReadonlyArray<Hop>

/** The priority at which the kernel translates addresses. */
const translation = -100

/** A mark other than 0 is set at its hop, and stays on the packet from there. */
export const pathsOf = (published: Published, acceptMark: Packet["mark"]): ReadonlyArray<PacketPath> => {
  const sent = toHost(published)
  const direct = toBackend(published)
  switch (published.traffic) {
    case "relayed": {
      const client: Packet = { ...sent, family: published.host.family }
      const relay: Packet = { ...direct, iif: undefined }
      return [client, reply(client), relay, reply(relay)].map(pathOf)
    }
    case "routed":
      return [direct, reply(direct)].map(pathOf)
    case "redirected": {
      const forwarded: Packet = { ...direct, original: sent.original, redirected: true }
      const translated: Packet = { ...forwarded, oif: undefined, mark: acceptMark }
      const [, ...onward] = pathOf(forwarded)
      return [
        [
          { hook: "prerouting", packet: sent, to: translation },
          { hook: "prerouting", packet: translated, from: translation },
          ...onward
        ],
        pathOf({ ...reply(forwarded), mark: acceptMark })
      ]
    }
  }
}

const pathOf = (packet: Packet): PacketPath => {
  if (packet.iif === undefined) return hops(packet, "output", "postrouting")
  if (packet.toHost) return hops(packet, "prerouting", "input")
  return [...hops({ ...packet, oif: undefined }, "prerouting"), ...hops(packet, "forward", "postrouting")]
}

const hops = (packet: Packet, ...hooks: ReadonlyArray<Hook>): PacketPath =>
  hooks.map((hook) => ({ hook, packet }))

const toHost = ({ protocol, port, backend, spokenTo, outside }: Published): Packet => ({
  family: backend.address.family,
  protocol,
  iif: outside,
  oif: undefined,
  source: undefined,
  sourcePort: undefined,
  destination: spokenTo,
  destinationPort: port,
  toHost: true,
  original: { destination: spokenTo, port },
  state: "new",
  direction: "original",
  redirected: false,
  mark: 0
})

const toBackend = (published: Published): Packet => {
  const { address, port } = published.backend
  return {
    ...toHost(published),
    oif: published.inside,
    destination: address.octets,
    destinationPort: port,
    toHost: false,
    original: { destination: address.octets, port }
  }
}

/** The same hooks in the opposite direction. */
const reply = (packet: Packet): Packet => ({
  ...packet,
  iif: packet.oif,
  oif: packet.iif,
  source: packet.destination,
  sourcePort: packet.destinationPort,
  destination: packet.source,
  destinationPort: packet.sourcePort,
  toHost: packet.iif === undefined,
  state: "established",
  direction: "reply"
})

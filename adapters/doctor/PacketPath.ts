/**
 * The packets of a published port, hook by hook: those of a client's new connection, and of the answers to it. Pure.
 *
 * What is redirected is the host's until it is translated, and forwarded to the backend from then on; what is relayed is
 * the host's own, and so is the relay's connection to the backend.
 */
import type { Address } from "../../src/protocol/Address.ts"
import type { Endpoint } from "../../src/protocol/PortBinding.ts"
import type { Protocol } from "../../src/protocol/Protocol.ts"
import type { Hook, Packet, Place } from "./Packet.ts"

export interface Published {
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
  readonly backend: Endpoint
  /** How its traffic gets to the backend. */
  readonly traffic: "redirected" | "relayed" | "routed"
  /** The address that a client speaks to; `undefined` where there is none in particular. */
  readonly spokenTo: Place
  /** The interface by which outsiders come, and the one towards the backend. */
  readonly outside: string
  readonly inside: string
  /** No mapping, but one as it might be made: whoever opens the way for a mapping would have done it. */
  readonly imagined: boolean
}

export interface Leg {
  readonly hook: Hook
  /** Bounds of the chains' priorities, the lower inclusive. */
  readonly from: number
  readonly to: number
  readonly packet: Packet
}

/** Where the kernel translates addresses. */
const translation = -100

/** Each way of a connection is a list of legs, one after the other. The mark of one that is not 0 is set there, and carried on. */
export const legsOf = (
  published: Published,
  acceptMark: Packet["mark"]
): ReadonlyArray<ReadonlyArray<Leg>> => {
  switch (published.traffic) {
    case "redirected":
      return [forwarded(published, acceptMark), answers(published)]
    case "routed":
      return [routed(published), answers(published)]
    case "relayed":
      return [...relayed(published), ...relay(published)]
  }
}

const leg = (hook: Hook, packet: Packet, from = -Infinity, to = Infinity): Leg => ({ hook, from, to, packet })

const clientPacket = (published: Published): Packet => ({
  family: published.backend.address.family,
  protocol: published.protocol,
  iif: published.outside,
  oif: undefined,
  source: undefined,
  sourcePort: undefined,
  destination: published.spokenTo,
  destinationPort: published.port,
  toHost: true,
  original: { destination: published.spokenTo, port: published.port },
  state: "new",
  direction: "original",
  redirected: false,
  mark: 0
})

const forwarded = (published: Published, acceptMark: Packet["mark"]): ReadonlyArray<Leg> => {
  const before = clientPacket(published)
  const after: Packet = {
    ...before,
    destination: published.backend.address.octets,
    destinationPort: published.backend.port,
    toHost: false,
    redirected: true,
    mark: acceptMark
  }
  const out = { ...after, oif: published.inside, mark: 0 }
  return [
    leg("prerouting", before, -Infinity, translation),
    leg("prerouting", after, translation),
    leg("forward", out),
    leg("postrouting", out)
  ]
}

const routed = (published: Published): ReadonlyArray<Leg> => {
  const { address, port } = published.backend
  const packet: Packet = {
    ...clientPacket(published),
    destination: address.octets,
    destinationPort: port,
    toHost: false,
    original: { destination: address.octets, port }
  }
  const out = { ...packet, oif: published.inside }
  return [leg("prerouting", packet), leg("forward", out), leg("postrouting", out)]
}

/** What the backend answers, through the same hooks the other way. */
const answers = (published: Published): ReadonlyArray<Leg> => {
  const { address, port } = published.backend
  const redirected = published.traffic === "redirected"
  const packet: Packet = {
    ...clientPacket(published),
    iif: published.inside,
    source: address.octets,
    sourcePort: port,
    destination: undefined,
    destinationPort: undefined,
    toHost: false,
    original: redirected
      ? { destination: published.spokenTo, port: published.port }
      : { destination: address.octets, port },
    state: "established",
    direction: "reply",
    redirected
  }
  const out = { ...packet, oif: published.outside }
  return [leg("prerouting", packet), leg("forward", out), leg("postrouting", out)]
}

const relayed = (published: Published): ReadonlyArray<ReadonlyArray<Leg>> => {
  const packet: Packet = { ...clientPacket(published), family: published.host.family }
  const answer: Packet = {
    ...packet,
    iif: undefined,
    oif: published.outside,
    source: published.spokenTo,
    sourcePort: published.port,
    destination: undefined,
    destinationPort: undefined,
    toHost: false,
    state: "established",
    direction: "reply"
  }
  return [
    [leg("prerouting", packet), leg("input", packet)],
    [leg("output", answer), leg("postrouting", answer)]
  ]
}

/** The relay's own connection. */
const relay = (published: Published): ReadonlyArray<ReadonlyArray<Leg>> => {
  const { address, port } = published.backend
  const packet: Packet = {
    ...clientPacket(published),
    iif: undefined,
    oif: published.inside,
    destination: address.octets,
    destinationPort: port,
    toHost: false,
    original: { destination: address.octets, port }
  }
  const answer: Packet = {
    ...packet,
    iif: published.inside,
    oif: undefined,
    source: address.octets,
    sourcePort: port,
    destination: undefined,
    destinationPort: undefined,
    toHost: true,
    state: "established",
    direction: "reply"
  }
  return [
    [leg("output", packet), leg("postrouting", packet)],
    [leg("prerouting", answer), leg("input", answer)]
  ]
}

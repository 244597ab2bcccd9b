/** The packets that the doctor traces: what is known of each, and what is left open. */
import type { Family } from "../../src/protocol/Address.ts"
import type { Protocol } from "../../src/protocol/Protocol.ts"
import { is, type Match } from "./Match.ts"

export type Hook = "prerouting" | "input" | "forward" | "output" | "postrouting"

/** `undefined` is any address outside. */
export type Place = Uint8Array | undefined
/** `undefined` is any ephemeral port. */
export type Port = number | undefined

/** A packet at one hook, or at several where it looks the same. */
export interface Packet {
  readonly family: Family
  readonly protocol: Protocol
  /** The names of interfaces; `undefined` if there is none at this hook. */
  readonly iif: string | undefined
  readonly oif: string | undefined
  readonly source: Place
  readonly sourcePort: Port
  readonly destination: Place
  readonly destinationPort: Port
  /** Whether the destination is an address of this host. */
  readonly toHost: boolean
  /** The destination of the first packet of its connection. */
  readonly original: { readonly destination: Place; readonly port: Port }
  readonly state: "new" | "established"
  readonly direction: "original" | "reply"
  readonly redirected: boolean
  /** `undefined` if it is unknown. */
  readonly mark: number | undefined
}

const lowestEphemeral = 32_768
const highestPort = 65_535

export const isPortWithin = (port: Port, first: number, last: number): Match => {
  if (port !== undefined) return is(port >= first && port <= last)
  if (first === 0 && last >= highestPort) return "yes"
  return first <= lowestEphemeral && last >= 60_999 ? "mostly" : "rarely"
}

/** Bounds are inclusive, and of one family; an address of another is outside them. */
export const isPlaceWithin = (place: Place, family: Family, first: Uint8Array, last: Uint8Array): Match => {
  if (first.length !== (family === 4 ? 4 : 16)) return "no"
  if (place !== undefined) return is(Buffer.compare(place, first) >= 0 && Buffer.compare(place, last) <= 0)
  return first.every((octet) => octet === 0) && last.every((octet) => octet === 255) ? "yes" : "rarely"
}

/** A pattern may end in `*`, or in `+` as iptables writes it. */
export const isInterface = (name: string | undefined, pattern: string): Match => {
  if (name === undefined) return "no"
  return is(/[*+]$/.test(pattern) ? name.startsWith(pattern.slice(0, -1)) : name === pattern)
}

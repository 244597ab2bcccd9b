/**
 * What hosts claim in a cell, and what excludes what. Pure.
 *
 * A cell is 64 aligned ports, of all protocols: a block of ephemeral ports serves TCP, UDP and SCTP alike, since one
 * group may want a port in several of them. A port that is asked for by its number is claimed in one protocol. The
 * addresses that it is published on play no part.
 */
import { Result, Schema } from "effect"
import type { Claimant } from "../ports/PortAllocator.ts"
import type { Claimed, ClusterPort } from "../ports/PortClaims.ts"
import { containerName } from "../protocol/ListedText.ts"
import type { PortRange } from "../protocol/PortRange.ts"
import { rangeText } from "../protocol/PortRange.ts"
import { Protocol } from "../protocol/Protocol.ts"
import { serviceName } from "../protocol/ServiceName.ts"
import type { CellState, Claim, HeldClaim } from "./ClusterState.ts"

export const cellSize = 64
/** The fewest ports that a host takes at once. */
export const smallestBlock = 4

const Port = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65535 }))

/** Others print it. The longest name of a service, with the kind of its callers, has 449 characters. */
const isPrintable = (text: string): boolean => /^[\x20-\x7e]{0,512}$/.test(text)
/** The zone of an address may be any text. */
const printable = (text: string): string => text.replace(/[^\x20-\x7e]/g, "?").slice(0, 512)
const Text = Schema.String.check(Schema.makeFilter(isPrintable))

/** Milliseconds since the Unix epoch, as far as a `Date` goes: others print it. */
const Time = Schema.Number.check(Schema.isBetween({ minimum: -8.64e15, maximum: 8.64e15 }))

const use = {
  protocol: Protocol,
  port: Port,
  owner: Text,
  backend: Text,
  container: Schema.optionalKey(Text),
  sinceMillis: Time
}
const Use = Schema.Struct(use)
/** What a port is used for. */
export type Use = typeof Use.Type

const PortClaim = Schema.TaggedStruct("Port", { ...use, service: Schema.optionalKey(Text) })
export type PortClaim = typeof PortClaim.Type

/**
 * Aligned to its size, a power of two; from it the host gives out ephemeral ports without asking anybody. `uses` says
 * which, some time after: it is for people, and nothing is decided on it.
 */
const Block = Schema.TaggedStruct("Block", {
  first: Port,
  last: Port,
  uses: Schema.optionalKey(Schema.Array(Use))
})
export type Block = typeof Block.Type

/** `Unreadable`: of a later version, or not ours. It may be anything, so it excludes everything. */
export type Item = PortClaim | Block | { readonly _tag: "Unreadable" }

const Value = Schema.fromJsonString(Schema.Union([PortClaim, Block]))
const encode = Schema.encodeSync(Value)
const decode = Schema.decodeUnknownResult(Value)

export const itemOf = (claim: Pick<Claim, "value">): Item => {
  const known = items.get(claim)
  if (known !== undefined) return known
  const item = Result.getOrElse(decode(claim.value), (): Item => ({ _tag: "Unreadable" }))
  items.set(claim, item)
  return item
}

/** A claim is looked at whenever its cell is. */
const items = new WeakMap<object, Item>()

/** Sorted as the ports are. */
export const cellOf = (port: number): string => `${Math.floor(port / cellSize)}`.padStart(4, "0")

export const useOf = (
  { protocol, port }: ClusterPort,
  { owner, backend, container }: Claimant,
  sinceMillis: number
): Use => ({
  ...{ protocol, port, owner, backend: printable(backend), sinceMillis },
  ...(container !== undefined && isPrintable(container) ? { container } : {})
})

export const portClaim = (at: ClusterPort, claimant: Claimant, sinceMillis: number): PortClaim => ({
  _tag: "Port",
  ...useOf(at, claimant, sinceMillis),
  ...(claimant.service === undefined ? {} : { service: claimant.service })
})

/** The claim's name has the host in it: members of a service on several hosts claim one port. */
export const claimOf = (host: string, item: PortClaim | Block): Claim => ({
  name: item._tag === "Port" ? `${item.protocol}.${item.port}.${host}` : `block.${rangeText(item)}.${host}`,
  value: encode(item)
})

/** The claim that keeps this host from this port, if there is one. */
export const excluderOf = (
  { claims }: Pick<CellState, "claims">,
  host: string,
  wanted: Claimed
): HeldClaim | undefined => claims.find((held) => excludes(itemOf(held), held.host === host, wanted))

const excludes = (
  item: Item,
  isOwn: boolean,
  { protocol, port, claimant: { service } }: Claimed
): boolean => {
  switch (item._tag) {
    case "Unreadable":
      return true
    case "Block":
      return !isOwn && item.first <= port && port <= item.last
    case "Port": {
      if (item.protocol !== protocol || item.port !== port) return false
      return isOwn ? item.service !== service : service === undefined || item.service !== service
    }
  }
}

/** A free block of this size in the cell and the range: one without any claim. */
export const freeBlock = (
  cell: string,
  { claims }: Pick<CellState, "claims">,
  size: number,
  { first, last }: PortRange
): Block | undefined => {
  const taken = claims.map(itemOf)
  const start = Number(cell) * cellSize
  for (let from = start; from < start + cellSize; from += size) {
    const to = from + size - 1
    const isFree = taken.every((item) => {
      if (item._tag === "Unreadable") return false
      return item._tag === "Port" ? item.port < from || item.port > to : item.last < from || item.first > to
    })
    if (isFree && from >= Math.max(1, first) && to <= last) return { _tag: "Block", first: from, last: to }
  }
  return undefined
}

/** The cells that have ports of the range, each once, from one of them on and around. */
export const cellsOf = ({ first, last }: PortRange, from: number): ReadonlyArray<string> => {
  const lowest = Math.floor(first / cellSize)
  const count = Math.floor(last / cellSize) - lowest + 1
  return Array.from({ length: count }, (_, index) => cellOf((lowest + ((from + index) % count)) * cellSize))
}

/**
 * How many ports a host takes at once that uses so many: as many again, a power of two. So a small host leaves a cell to
 * others, and a large one asks the cluster seldom.
 */
export const blockSizeFor = (used: number): number => {
  let size = smallestBlock
  while (size < used && size < cellSize) size *= 2
  return size
}

/** Below so many free ports a host takes another block, before a call needs it. */
export const lowWater = (used: number): number => Math.min(cellSize / 2, Math.max(2, Math.ceil(used / 4)))

/** Who has it, as a refused caller reads it. */
export const holderText = (held: HeldClaim): string => {
  const item = itemOf(held)
  const host = `held by host ${held.host}`
  if (item._tag === "Block") return `${host} for its ephemeral ports`
  if (item._tag === "Unreadable") return `${host}, as another version of portmapper says`
  if (item.service !== undefined) return `${host}, service ${serviceName(item.service)}`
  return item.container === undefined
    ? `${host} for ${item.backend}, owner ${item.owner}`
    : `${host}, container ${containerName(item.container)}`
}

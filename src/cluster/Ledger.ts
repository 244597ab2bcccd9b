/**
 * What this host has claimed in the cluster, and what its mapper needs of it. All of it changes at once, between two
 * steps of other fibers; what is asked of the store is the business of `PortClaiming` and `Membership`.
 */
import type { Claimant } from "../ports/PortAllocator.ts"
import type { Claimed, ClusterPort } from "../ports/PortClaims.ts"
import { PortSet } from "../ports/PortTable.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import { type Block, blockSizeFor, cellOf } from "./Cells.ts"
import type { HeldName } from "./ClusterState.ts"

/** A port that the host has reserved; without a claimant it is the host's own affair. */
export interface Reserved extends ClusterPort {
  readonly claimant: Claimant | undefined
}

/** A claim on one port. `claim` is `undefined` while it is unknown whether it is still this host's. */
export interface OwnPort extends ClusterPort {
  claimant: Claimant
  claim: HeldName | undefined
  /** The calls under way that want it. */
  tickets: number
  /** Whether its claimant is still to be published. */
  isUnpublished: boolean
}

export interface OwnBlock extends Block {
  readonly claim: HeldName
  /** Its ports that this host has reserved. */
  used: number
  /** Whether what is reserved in it is still to be published. */
  isUnpublished: boolean
}

interface Reservation extends ClusterPort {
  claimant: Claimant | undefined
  count: number
  /** When it was first published. */
  sinceMillis: number | undefined
}

const isClaimed = (reservation: Reservation): reservation is Reservation & Claimed =>
  reservation.claimant !== undefined

export class Ledger {
  readonly #ports = new Map<string, OwnPort>()
  readonly #blocks = new Map<string, OwnBlock>()
  /** The blocks of each cell. */
  readonly #blocksIn = new Map<string, Array<OwnBlock>>()
  /** What the host has reserved of each port, by protocol. */
  readonly #reserved = new Map<number, Map<Protocol, Reservation>>()
  /** What was released, or wanted by a call, since the last `take`. */
  readonly #touched = new Set<OwnPort>()
  #emptied = false
  #free = 0
  #size = 0
  #outsideBlocks = everyPort()
  /** Not given back yet. By `epochText`. */
  readonly #returning = new Map<string, HeldName>()

  /** The epoch of the claim with this name, if it has one. */
  epochOf(name: string): number | undefined {
    const [protocol, port] = name.split(".", 2)
    const claim = this.#ports.get(`${protocol} ${port}`)?.claim ?? this.#blocks.get(name)?.claim
    return claim?.revision
  }

  ports(): ReadonlyArray<OwnPort> {
    return [...this.#ports.values()]
  }

  blocks(): ReadonlyArray<OwnBlock> {
    return [...this.#blocks.values()]
  }

  /** The free ports of all blocks. */
  get free(): number {
    return this.#free
  }

  get usedOfBlocks(): number {
    return this.#size - this.#free
  }

  isReserved({ protocol, port }: ClusterPort): boolean {
    return this.#reserved.get(port)?.has(protocol) ?? false
  }

  /** Whether this host may give out the port, as far as the cluster is concerned. */
  covers({ claimant: { service }, ...at }: Claimed): boolean {
    const own = this.#ports.get(keyOf(at))
    if (own !== undefined) return own.claimant.service === service
    return service === undefined && this.#blockWith(at.port) !== undefined
  }

  /** The ports that a group must not get. For an ephemeral request these are all ports outside of the host's blocks. */
  outside(ports: "Range" | "Ephemeral", protocols: ReadonlyArray<Protocol>): PortSet {
    if (ports === "Ephemeral") return this.#outsideBlocks
    const set = new PortSet()
    set.words.set(this.#outsideBlocks.words)
    const isClaimed = (protocol: Protocol, port: number): boolean => {
      const own = this.#ports.get(keyOf({ protocol, port }))
      return own !== undefined && own.claimant.service === undefined
    }
    for (const { port } of this.#ports.values())
      if (protocols.every((protocol) => isClaimed(protocol, port))) set.delete(port)
    return set
  }

  /** A call wants the port. Where there is a claim on this one port, it is not given back before `drop`. */
  ticket(port: ClusterPort, tickets: Set<OwnPort>): void {
    const own = this.#ports.get(keyOf(port))
    if (own === undefined || tickets.has(own)) return
    own.tickets++
    tickets.add(own)
  }

  drop(tickets: ReadonlySet<OwnPort>): void {
    for (const own of tickets) own.tickets--
    this.touch([...tickets])
  }

  /** Marks ports that may no longer be needed, for `take` to look at. */
  touch(ports: ReadonlyArray<ClusterPort>): void {
    for (const port of ports) {
      const own = this.#ports.get(keyOf(port))
      if (own !== undefined) this.#touched.add(own)
    }
  }

  add({ protocol, port, claimant }: Claimed, claim: HeldName | undefined): void {
    const there = this.#ports.get(keyOf({ protocol, port }))
    if (there !== undefined) there.claim = claim
    else
      this.#ports.set(keyOf({ protocol, port }), {
        ...{ protocol, port, claimant, claim },
        ...{ tickets: 0, isUnpublished: false }
      })
    this.touch([{ protocol, port }])
  }

  /** Whether a port from `ports` is still in the ledger. */
  has(own: OwnPort): boolean {
    return this.#ports.get(keyOf(own)) === own
  }

  /** Updates the container that a port's claimant names. */
  describe({ claimant, ...at }: Claimed): void {
    const own = this.#ports.get(keyOf(at))
    if (own !== undefined && own.claimant.container !== claimant.container) {
      own.claimant = { ...own.claimant, container: claimant.container }
      own.isUnpublished = true
    }
    const reserved = this.#reserved.get(at.port)?.get(at.protocol)
    const block = this.#blockWith(at.port)
    if (reserved?.claimant === undefined || block === undefined) return
    reserved.claimant = { ...reserved.claimant, container: claimant.container }
    block.isUnpublished = true
  }

  remove(port: ClusterPort): void {
    const own = this.#ports.get(keyOf(port))
    if (own === undefined) return
    this.#ports.delete(keyOf(port))
    this.#touched.delete(own)
  }

  addBlock({ first, last }: Block, claim: HeldName): void {
    const block: OwnBlock = { _tag: "Block", first, last, claim, used: 0, isUnpublished: false }
    for (let port = first; port <= last; port++) {
      if (this.#reserved.has(port)) block.used++
      this.#outsideBlocks.delete(port)
    }
    this.#size += last - first + 1
    this.#free += last - first + 1 - block.used
    this.#blocks.set(claim.name, block)
    if (block.used === 0) this.#emptied = true
    else block.isUnpublished = true
    const others = this.#blocksIn.get(claim.cell)
    if (others === undefined) this.#blocksIn.set(claim.cell, [block])
    else others.push(block)
  }

  removeBlock({ first, last, claim, used }: OwnBlock): void {
    this.#blocks.delete(claim.name)
    const others = (this.#blocksIn.get(claim.cell) ?? []).filter((other) => other.claim !== claim)
    if (others.length > 0) this.#blocksIn.set(claim.cell, others)
    else this.#blocksIn.delete(claim.cell)
    this.#size -= last - first + 1
    this.#free -= last - first + 1 - used
    for (let port = first; port <= last; port++) this.#outsideBlocks.add(port)
  }

  /** The ports of a block that this host has reserved, to be unique in the cluster. */
  reservedIn({ first, last }: Block): ReadonlyArray<Reservation & Claimed> {
    const found: Array<Reservation & Claimed> = []
    for (let port = first; port <= last; port++)
      for (const reservation of this.#reserved.get(port)?.values() ?? [])
        if (isClaimed(reservation)) found.push(reservation)
    return found
  }

  /** The host reserved a port. */
  reserve({ protocol, port, claimant }: Reserved): void {
    const there = this.#reserved.get(port)
    const one = there?.get(protocol)
    const reservation: Reservation = { protocol, port, claimant, count: 1, sinceMillis: undefined }
    if (one !== undefined) {
      one.count++
      one.claimant ??= claimant
    } else if (there !== undefined) there.set(protocol, reservation)
    else {
      this.#reserved.set(port, new Map([[protocol, reservation]]))
      this.#count(port, 1)
    }
  }

  release(at: ClusterPort): void {
    const there = this.#reserved.get(at.port)
    const one = there?.get(at.protocol)
    if (there === undefined || one === undefined) return
    this.touch([at])
    one.count--
    if (one.count === 0) there.delete(at.protocol)
    if (there.size > 0) return
    this.#reserved.delete(at.port)
    this.#count(at.port, -1)
  }

  /** A port of a block, if it is of one, is reserved or is not any more. */
  #count(port: number, change: 1 | -1): void {
    const block = this.#blockWith(port)
    if (block === undefined) return
    block.used += change
    block.isUnpublished = true
    this.#free -= change
    if (block.used === 0) this.#emptied = true
  }

  /** Whether `take` would take anything. What is reserved comes up again with its release, anything else stays. */
  hasUnneeded(isNeeded: (port: ClusterPort) => boolean): boolean {
    let isAny = false
    for (const own of this.#touched) {
      if (own.tickets === 0 && this.#isUnneeded(own, isNeeded)) isAny = true
      else if (own.tickets > 0 || this.#isReservedFor(own)) this.#touched.delete(own)
    }
    if (this.#emptied && this.#spareBlocks().length === 0) this.#emptied = false
    return isAny || this.#emptied
  }

  /**
   * Takes what nothing needs any more out of the ledger. This host may not give it out from here on, and owes it to the
   * others.
   */
  take(isNeeded: (port: ClusterPort) => boolean): void {
    if (!this.hasUnneeded(isNeeded)) return
    for (const own of this.#touched) {
      if (!this.#isUnneeded(own, isNeeded)) continue
      this.remove(own)
      if (own.claim !== undefined) this.owe([own.claim])
    }
    this.#emptied = false
    for (const block of this.#spareBlocks()) {
      this.removeBlock(block)
      this.owe([block.claim])
    }
  }

  /** What this host owes to the others, now. */
  get returning(): ReadonlyArray<HeldName> {
    return [...this.#returning.values()]
  }

  owes(claim: HeldName): boolean {
    return this.#returning.has(epochText(claim))
  }

  owe(claims: ReadonlyArray<HeldName>): void {
    for (const claim of claims) this.#returning.set(epochText(claim), claim)
  }

  /** They have been given back. */
  returned(claims: ReadonlyArray<HeldName>): void {
    for (const claim of claims) this.#returning.delete(epochText(claim))
  }

  /** Empty blocks beyond twice what the host would take next. */
  #spareBlocks(): ReadonlyArray<OwnBlock> {
    const spare: Array<OwnBlock> = []
    let free = this.#free
    const kept = 2 * blockSizeFor(this.usedOfBlocks)
    for (const block of this.#blocks.values()) {
      const size = block.last - block.first + 1
      if (block.used > 0 || free - size < kept) continue
      spare.push(block)
      free -= size
    }
    return spare
  }

  /** Also what a refused call claimed for a service, where the port is in use for another, or for none. */
  #isUnneeded(own: OwnPort, isNeeded: (port: ClusterPort) => boolean): boolean {
    const claimant = this.#reserved.get(own.port)?.get(own.protocol)?.claimant
    return !isNeeded(own) || (claimant !== undefined && claimant.service !== own.claimant.service)
  }

  #isReservedFor({ protocol, port }: ClusterPort): boolean {
    return this.#reserved.get(port)?.get(protocol)?.claimant !== undefined
  }

  #blockWith(port: number): OwnBlock | undefined {
    return this.#blocksIn.get(cellOf(port))?.find(({ first, last }) => first <= port && port <= last)
  }
}

export const keyOf = ({ protocol, port }: ClusterPort): string => `${protocol} ${port}`

/** A port may be claimed for one service, and be wanted for another. */
export const serviceKeyOf = (port: ClusterPort, service: string | undefined): string =>
  `${keyOf(port)} ${service ?? ""}`

const epochText = ({ name, revision }: HeldName): string => `${revision} ${name}`

const everyPort = (): PortSet => {
  const set = new PortSet()
  set.words.fill(0xffffffff)
  return set
}

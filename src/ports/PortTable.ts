/**
 * Which ports are taken on which addresses: a bitset per protocol and address, and a union per protocol and family,
 * so that a search for a port free on all addresses of a group tests 32 ports at a time. Knows nothing of sockets
 * or of other processes.
 *
 * The conflict rule: two frontends collide when protocol and port are equal and the addresses are equal, or one of
 * them is the unspecified address of their common family. `0.0.0.0` and `::` do not collide.
 */
import { type Address, isUnspecified } from "../protocol/Address.ts"
import type { PortRange } from "../protocol/PortRange.ts"
import type { Protocol } from "../protocol/Protocol.ts"

export interface Frontend {
  readonly protocol: Protocol
  readonly host: Address
}

const wordCount = 65536 / 32

/** A set of ports. */
export class PortSet {
  readonly words = new Uint32Array(wordCount)

  static of(ranges: ReadonlyArray<PortRange>): PortSet {
    const set = new PortSet()
    for (const { first, last } of ranges) for (let port = first; port <= last; port++) set.add(port)
    return set
  }

  has(port: number): boolean {
    return ((wordAt(this.words, port >>> 5) >>> (port & 31)) & 1) === 1
  }

  add(port: number): void {
    this.words[port >>> 5] = wordAt(this.words, port >>> 5) | (1 << (port & 31))
  }

  delete(port: number): void {
    this.words[port >>> 5] = wordAt(this.words, port >>> 5) & ~(1 << (port & 31))
  }
}

/**
 * The most addresses that keep their set of 8 KiB while it is empty: most ports come and go on the same few
 * addresses.
 */
const keptAddresses = 16

/** All taken ports of one protocol and family, on any address. */
interface Plane {
  readonly byAddress: Map<string, { readonly host: Address; readonly ports: PortSet; count: number }>
  readonly anyAddress: PortSet
}

export class PortTable {
  readonly #planes = new Map<string, Plane>()

  /** Takes a port on one address. Checks nothing: the caller has made sure that the port is free. */
  add({ protocol, host }: Frontend, port: number): void {
    const plane = this.#plane(protocol, host.family)
    let held = plane.byAddress.get(host.key)
    if (held === undefined) {
      held = { host, ports: new PortSet(), count: 0 }
      plane.byAddress.set(host.key, held)
    }
    if (held.ports.has(port)) return
    held.ports.add(port)
    held.count++
    plane.anyAddress.add(port)
  }

  delete({ protocol, host }: Frontend, port: number): void {
    const plane = this.#plane(protocol, host.family)
    const held = plane.byAddress.get(host.key)
    if (held === undefined || !held.ports.has(port)) return
    held.ports.delete(port)
    held.count--
    if (held.count === 0 && plane.byAddress.size > keptAddresses) plane.byAddress.delete(host.key)
    for (const other of plane.byAddress.values()) if (other.ports.has(port)) return
    plane.anyAddress.delete(port)
  }

  /** The addresses on which `port` is taken and collides with this frontend. */
  collisions({ protocol, host }: Frontend, port: number): ReadonlyArray<Address> {
    const plane = this.#plane(protocol, host.family)
    if (!plane.anyAddress.has(port)) return []
    const any = isUnspecified(host)
    const found: Array<Address> = []
    for (const [key, held] of plane.byAddress) {
      if (held.ports.has(port) && (any || key === host.key || isUnspecified(held.host))) found.push(held.host)
    }
    return found
  }

  /**
   * The first port of `range`, from `from` upwards, that is free for all of these frontends and in no set of `except`;
   * `undefined` when there is none left between `from` and the end of the range.
   */
  firstFree(
    frontends: ReadonlyArray<Frontend>,
    range: PortRange,
    from: number,
    except: ReadonlyArray<PortSet> = []
  ): number | undefined {
    const sets = [...this.#setsAgainst(frontends), ...except]
    for (let index = from >>> 5; index <= range.last >>> 5; index++) {
      let taken = index === from >>> 5 ? (1 << (from & 31)) - 1 : 0
      for (const { words } of sets) taken |= wordAt(words, index)
      if (taken >>> 0 === 0xffffffff) continue
      const port = index * 32 + (31 - Math.clz32(~taken & -~taken))
      return port <= range.last ? port : undefined
    }
    return undefined
  }

  #setsAgainst(frontends: ReadonlyArray<Frontend>): Array<PortSet> {
    const sets = new Set<PortSet>()
    for (const { protocol, host } of frontends) {
      const plane = this.#plane(protocol, host.family)
      if (isUnspecified(host)) sets.add(plane.anyAddress)
      else
        for (const [key, held] of plane.byAddress)
          if (key === host.key || isUnspecified(held.host)) sets.add(held.ports)
    }
    return [...sets]
  }

  #plane(protocol: Protocol, family: number): Plane {
    const key = `${protocol}${family}`
    let plane = this.#planes.get(key)
    if (plane === undefined) {
      plane = { byAddress: new Map(), anyAddress: new PortSet() }
      this.#planes.set(key, plane)
    }
    return plane
  }
}

/** An index within the set's 2048 words always has a value. */
const wordAt = (words: Uint32Array, index: number): number => words[index] as number

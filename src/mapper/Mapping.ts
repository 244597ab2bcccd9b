/**
 * A mapping is a binding that is live: who asked for it, how its traffic is led, and what it takes of the host.
 * `Mappings` holds those of this process; what must survive it is in `MappingStore`.
 */
import { Context, Effect, Layer } from "effect"
import type { Rule } from "../firewall/Firewall.ts"
import type { Hold } from "../ports/PortAllocator.ts"
import { type Address, covers } from "../protocol/Address.ts"
import { type Endpoint, frontendText, type Labels } from "../protocol/PortBinding.ts"
import { type Protocol, protocolNumber } from "../protocol/Protocol.ts"
import type { Route } from "../relay/Relay.ts"
import type { Doubts } from "./Doubts.ts"
import type { Mode } from "./Labels.ts"
import { Lock } from "./Lock.ts"

export interface Mapping {
  readonly protocol: Protocol
  readonly host: Address
  /** The frontend address as it was asked for, which answers repeat. */
  readonly asked: string
  /** 0 in `routed` mode, which has no host port. */
  readonly port: number
  readonly backend: Endpoint
  readonly mode: Mode
  readonly labels: Labels
  readonly owner: string
  /** The start of the Engine that confirmed it last; counts from 0. Means nothing for other owners. */
  readonly epoch: number
  readonly sinceMillis: number
}

/**
 * `provisional`: made by a call whose answer is still on its way. `answered`: the caller knows. `unconfirmed`: found at a
 * start, applied but perhaps never answered; any claim on its port displaces it. `conflicted`: it can't be served, since its
 * port was taken by someone else meanwhile, and is tried again; it holds nothing.
 */
export type Standing = "provisional" | "answered" | "unconfirmed" | "conflicted"

/** A mapping and what it took. Mutable where a later call changes it; its frontend and backend never change. */
export interface Live {
  mapping: Mapping
  standing: Standing
  /** What a conflicted one was before, and is again once its port is free. */
  was?: "answered" | "unconfirmed"
  hold: Hold | undefined
  rules: ReadonlyArray<Rule>
  route: Route | undefined
  /** Its relay was refused, and is tried again. */
  unrelayed?: true
  /** The calls that answered with it and have not been delivered yet. */
  readonly deliveries: Set<Delivery>
  /** The number of the last call that was answered with it and delivered; none was where `undefined`. */
  delivered?: number
}

/** One call on its way to its caller; numbers rise in the order in which the calls were done. */
export interface Delivery {
  readonly number: number
  /** What it answered with a policy that nobody was answered with before; put back where nobody comes to be. */
  readonly changed: Array<Replaced>
  /** What gave way to what it made, and comes back where it is lost. */
  gone: ReadonlyArray<Live>
  /** What this answer takes the place of once it is delivered: the same bindings with a host port, as it names none. */
  readonly supersedes: ReadonlyArray<Live>
  /** What it answered with, and an earlier answer took the place of: that is carried out where this one is lost. */
  readonly superseded: Array<Live>
}

export const isConflicted = ({ standing }: Live): boolean => standing === "conflicted"

/** Of what holds nothing any more, and is to be served again. */
export const setAside = (live: Live): void => {
  if (isConflicted(live)) return
  live.was = live.standing === "answered" ? "answered" : "unconfirmed"
  live.standing = "conflicted"
  live.hold = undefined
  live.rules = []
  live.route = undefined
  delete live.unrelayed
}

/** A live mapping whose policy a call replaced, and what it was before. */
export interface Replaced {
  readonly live: Live
  before: Pick<Live, "mapping" | "rules" | "route">
}

/** What a mapping is known by: its frontend; in `routed` mode, which has none, protocol and backend. */
export const mappingKey = (
  mapping: Pick<Mapping, "protocol" | "host" | "port" | "backend" | "mode">
): string =>
  mapping.mode === "routed"
    ? routedKey(mapping.protocol, mapping.backend)
    : frontendKey(mapping.protocol, mapping.host, mapping.port)

export const routedKey = (protocol: Protocol, backend: Endpoint): string =>
  `routed ${protocolNumber[protocol]} ${backend.address.key} ${backend.port}`

export const frontendKey = (protocol: Protocol, host: Address, port: number): string =>
  `${protocolNumber[protocol]} ${host.key} ${port}`

export const sameBackend = (a: Endpoint, b: Endpoint): boolean =>
  a.port === b.port && a.address.key === b.address.key

export const mappingText = ({ protocol, host, port }: Mapping): string => frontendText(protocol, host, port)

/** The mappings of this process, found by frontend. Every change happens under `lock`. */
export class Mappings extends Context.Service<
  Mappings,
  {
    readonly lock: Lock
    readonly get: (key: string) => Live | undefined
    /**
     * Those that have a host port and collide with this frontend, itself included: by their own, or by the address that
     * the socket they rest on is bound to.
     */
    readonly colliding: (protocol: Protocol, host: Address, port: number) => ReadonlyArray<Live>
    readonly add: (live: Live) => void
    readonly delete: (live: Live) => void
    readonly all: () => IterableIterator<Live>
    readonly size: () => number
    /** Under way until it is delivered or lost. */
    readonly newDelivery: (given: Pick<Delivery, "changed" | "gone" | "supersedes">) => Delivery
    readonly underWay: Set<Delivery>
    /** The Engine's starts, as far as they were noticed; see `epochs` in DESIGN. */
    readonly engine: EngineEpoch
    readonly doubts: Doubts
  }
>()("portmapper/mapper/Mappings") {
  static readonly layer = Layer.effect(Mappings, Effect.sync(make))
}

/**
 * A new Engine start begins an epoch: at the first `MapPorts` after a `Plugin.Activate`, so that an Activate which
 * nothing follows changes nothing.
 */
export interface EngineEpoch {
  number: number
  sinceMillis: number
  activated: boolean
}

/** How long a new Engine has to confirm the mappings of the one before it. */
export const staleAfterMillis = 60_000

/** Whether a mapping of an Engine's earlier start was given the time to be confirmed, and was not. */
export const isStale = ({ mapping }: Live, engine: EngineEpoch, nowMillis: number): boolean =>
  mapping.owner === "engine" &&
  mapping.epoch < engine.number &&
  nowMillis - engine.sinceMillis >= staleAfterMillis

function make() {
  const byKey = new Map<string, Live>()
  const byPort = new Map<string, Set<Live>>()
  const underWay = new Set<Delivery>()
  let deliveries = 0
  const portKey = (protocol: Protocol, port: number) => `${protocolNumber[protocol]} ${port}`

  return Mappings.of({
    lock: new Lock(),
    get: (key) => byKey.get(key),
    colliding: (protocol, host, port) =>
      [...(byPort.get(portKey(protocol, port)) ?? [])].filter(
        ({ mapping, hold }) =>
          covers(mapping.host, host) ||
          covers(host, mapping.host) ||
          (hold !== undefined && covers(hold.socket.host, host))
      ),
    add: (live) => {
      byKey.set(mappingKey(live.mapping), live)
      if (live.mapping.mode === "routed") return
      const key = portKey(live.mapping.protocol, live.mapping.port)
      const there = byPort.get(key)
      if (there === undefined) byPort.set(key, new Set([live]))
      else there.add(live)
    },
    delete: (live) => {
      const key = mappingKey(live.mapping)
      if (byKey.get(key) === live) byKey.delete(key)
      const there = byPort.get(portKey(live.mapping.protocol, live.mapping.port))
      there?.delete(live)
      if (there?.size === 0) byPort.delete(portKey(live.mapping.protocol, live.mapping.port))
    },
    all: () => byKey.values(),
    size: () => byKey.size,
    newDelivery: (given) => {
      const delivery: Delivery = { ...given, number: ++deliveries, superseded: [] }
      underWay.add(delivery)
      return delivery
    },
    underWay,
    engine: { number: 0, sinceMillis: 0, activated: false },
    doubts: { table: false, record: false }
  })
}

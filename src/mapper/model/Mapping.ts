/**
 * A mapping, and its entry in the table of this process: its owner, the state of its answer, and the host resources
 * it holds. `MappingStore` has what must survive the process.
 */
import { Context, Effect, Layer, Semaphore } from "effect"
import type { Rule } from "../../firewall/Firewall.ts"
import type { Hold } from "../../ports/PortAllocator.ts"
import { type Address, covers } from "../../protocol/Address.ts"
import { followedContainer } from "../../protocol/FollowLabels.ts"
import { type Endpoint, endpointText, frontendText, type Labels } from "../../protocol/PortBinding.ts"
import { type Protocol, protocolNumber } from "../../protocol/Protocol.ts"
import { asleepText, isRestingPlace } from "../../protocol/RestingPlace.ts"
import type { SlotShare } from "../../protocol/Slots.ts"
import type { Route } from "../../relay/Relay.ts"
import { idleLabel, type Mode } from "./Labels.ts"

export interface Mapping {
  readonly protocol: Protocol
  readonly host: Address
  /** The frontend address as the caller wrote it; answers repeat it. */
  readonly requestedAddress: string
  /** 0 in `routed` mode, which has no host port. */
  readonly port: number
  readonly backend: Endpoint
  readonly mode: Mode
  readonly labels: Labels
  readonly owner: string
  /** The Engine start that confirmed it last, counted from 0. Meaningless for other owners. */
  readonly epoch: number
  readonly sinceMillis: number
  /** Waits for its frontend, which another attachment of the same container has; see `Standby`. It holds nothing. */
  readonly standby?: true | undefined
  /**
   * The container that has the backend address, in the words of `Backends`; `undefined` while it is unknown. Known
   * for mappings of an Engine alone.
   */
  readonly container: string | undefined
  /** Where its port is shared with other backends. */
  readonly share?: Share | undefined
  /** A person took its traffic away, until it is given back or the mapping ends. */
  readonly drained?: true | undefined
}

/** Whether new connections may be led to its backend; else it keeps its port alone. */
export const takesTraffic = ({ drained, labels }: Pick<Mapping, "drained" | "labels">): boolean =>
  !drained && !labels.has(idleLabel)

/** A mapping's part in a service: the mappings of one frontend, each to another backend. */
export interface Share extends SlotShare {
  /** Who may join, and its name: `watch shop/web`, `cli web`, or `/web`. */
  readonly service: string
}

/**
 * `Provisional`: created by calls whose answers are all still pending. `Answered`: a caller has received an answer
 * with it. `Unconfirmed`: perhaps answered, perhaps not; it may be evicted. `Conflicted`: can't be served, because
 * its port is taken or the relay refuses it; it holds nothing, and is retried. `Gone`: removed. `pending` counts
 * the pending answers that name it; while there are any it is not evicted.
 */
export type Status =
  | { readonly _tag: "Provisional"; readonly pending: number }
  | { readonly _tag: "Unconfirmed"; readonly pending: number }
  | { readonly _tag: "Answered"; readonly pending: number }
  | { readonly _tag: "Conflicted"; readonly was: "Unconfirmed" | "Answered" }
  | { readonly _tag: "Gone" }

/**
 * `asked`: a call is going to answer with it. `delivered`, `lost`: the outcome of one such answer. `removed`: it
 * was released. `stuck`: it should have been released, but the release failed. `conflict`: it can't be served.
 * `reactivated`: it is served again.
 */
export type StatusEvent = "asked" | "delivered" | "lost" | "removed" | "stuck" | "conflict" | "reactivated"

export const provisional: Status = { _tag: "Provisional", pending: 1 }
const gone: Status = { _tag: "Gone" }
/** Shared objects, since most entries have one of these. */
const settled = {
  Answered: { _tag: "Answered", pending: 0 },
  Unconfirmed: { _tag: "Unconfirmed", pending: 0 }
} as const

type Transitions<S extends Status["_tag"]> = Partial<
  Record<StatusEvent, (status: Extract<Status, { readonly _tag: S }>) => Status>
>

const answered = (pending: number): Status =>
  pending === 0 ? settled.Answered : { _tag: "Answered", pending }
const unconfirmed = (pending: number): Status =>
  pending === 0 ? settled.Unconfirmed : { _tag: "Unconfirmed", pending }

/** Every transition; an event that is not in a status's row does not change it. */
export const transitions: { readonly [S in Status["_tag"]]: Transitions<S> } = {
  Provisional: {
    asked: ({ pending }) => ({ _tag: "Provisional", pending: pending + 1 }),
    delivered: ({ pending }) => answered(pending - 1),
    lost: ({ pending }) => (pending > 1 ? { _tag: "Provisional", pending: pending - 1 } : gone),
    removed: () => gone,
    conflict: () => ({ _tag: "Conflicted", was: "Unconfirmed" })
  },
  Unconfirmed: {
    asked: ({ pending }) => unconfirmed(pending + 1),
    delivered: ({ pending }) => answered(pending - 1),
    lost: ({ pending }) => unconfirmed(pending - 1),
    removed: () => gone,
    conflict: () => ({ _tag: "Conflicted", was: "Unconfirmed" })
  },
  Answered: {
    asked: ({ pending }) => answered(pending + 1),
    delivered: ({ pending }) => answered(pending - 1),
    lost: ({ pending }) => answered(pending - 1),
    removed: () => gone,
    conflict: () => ({ _tag: "Conflicted", was: "Answered" })
  },
  Conflicted: {
    delivered: () => ({ _tag: "Conflicted", was: "Answered" }),
    removed: () => gone,
    reactivated: ({ was }) => settled[was]
  },
  Gone: {
    stuck: () => settled.Unconfirmed
  }
}

export const nextStatus = (status: Status, event: StatusEvent): Status => {
  const transition = transitions[status._tag][event] as ((status: Status) => Status) | undefined
  return transition === undefined ? status : transition(status)
}

/** The status of an entry that replaces another: the more confirmed of both, with the pending answers of both. */
export const takeOver = (status: Status, other: Status): Status => {
  const rank = (each: Status) => (each._tag === "Conflicted" ? each.was : each._tag)
  const tag = (["Answered", "Unconfirmed"] as const).find(
    (one) => one === rank(status) || one === rank(other)
  )
  return { _tag: tag ?? "Provisional", pending: pendingOf(status) + pendingOf(other) }
}

const pendingOf = (status: Status): number => ("pending" in status ? status.pending : 0)

/** What a served entry holds of the host. */
export interface Resources {
  readonly hold: Hold | undefined
  readonly rules: ReadonlyArray<Rule>
  readonly route: Route | undefined
  /** The relay refused its route, which is retried; until then `route` is the route that is still open, if any. */
  readonly relayPending: boolean
}

export const noResources: Resources = { hold: undefined, rules: [], route: undefined, relayPending: false }

/** Modified in place, under the lock; its frontend never changes, nor does its backend but where it is idle. */
export interface MappingEntry {
  mapping: Mapping
  status: Status
  /** Empty where the entry is conflicted or gone. */
  resources: Resources
  /** When a call asked for it last; after a restart, when it was mapped. */
  askedMillis: number
  /** Why it could not be served, or relayed, when that was tried last. Of the past where it is served. */
  reason?: string | undefined
  /** Where the entry is gone: its replacement. Pending answers that name this entry name that one instead. */
  replacedBy?: MappingEntry | undefined
}

export const isConflicted = ({ status }: MappingEntry): boolean => status._tag === "Conflicted"

/** Whether it is in conflict, but some answer named it: it keeps its port from other claims while it can be served again. */
export const isAnsweredConflict = ({ status }: MappingEntry): boolean =>
  status._tag === "Conflicted" && status.was === "Answered"

/** Whether a pending answer names it. */
export const isPending = ({ status }: MappingEntry): boolean => pendingOf(status) > 0

/**
 * The key of a mapping: its frontend; on a shared port, and of a standby, frontend and backend; in `routed` mode,
 * which has no frontend, protocol and backend.
 */
export const mappingKey = (
  mapping: Pick<Mapping, "protocol" | "host" | "port" | "backend" | "mode" | "standby"> & {
    readonly share?: unknown
  }
): string => {
  const { protocol, host, port, backend } = mapping
  if (mapping.mode === "routed") return routedKey(protocol, backend)
  const frontend = frontendKey(protocol, host, port)
  if (mapping.standby) return `standby ${memberKey(frontend, backend)}`
  return mapping.share === undefined ? frontend : memberKey(frontend, backend)
}

/** The key of one of several mappings of a frontend. */
export const memberKey = (frontend: string, { address, port }: Endpoint): string =>
  `${frontend} to ${address.key} ${port}`

export const routedKey = (protocol: Protocol, backend: Endpoint): string =>
  `routed ${protocolNumber[protocol]} ${backend.address.key} ${backend.port}`

export const frontendKey = (protocol: Protocol, host: Address, port: number): string =>
  `${protocolNumber[protocol]} ${host.key} ${port}`

/** `172.17.0.2:80`; `web (asleep)` where the container does not run, and so has no address. */
export const backendText = ({ backend, labels }: Pick<Mapping, "backend" | "labels">): string =>
  isRestingPlace(backend.address) ? asleepText(followedContainer(labels)?.name) : endpointText(backend)

/** `0.0.0.0:8080/tcp to 172.17.0.2:80`. */
export const mappingText = (mapping: Mapping): string => `${frontendText(mapping)} to ${backendText(mapping)}`

/** Whether the table or the record may differ from the entries because a change of it failed; see `Reconcile`. */
export interface DirtyFlags {
  table: boolean
  record: boolean
}

/**
 * A new Engine start begins an epoch. It begins with the first `MapPorts` after a `Plugin.Activate`, so that an
 * Activate without one changes nothing.
 */
export interface EngineEpoch {
  number: number
  sinceMillis: number
  activated: boolean
}

/** How long a new Engine has to confirm the mappings of the Engine before it. */
const staleAfterMillis = 60_000

/** Whether a mapping is of an earlier Engine start, and the time to confirm it has passed. */
export const isStale = ({ mapping }: MappingEntry, engine: EngineEpoch, nowMillis: number): boolean =>
  mapping.owner === "engine" &&
  mapping.epoch < engine.number &&
  nowMillis - engine.sinceMillis >= staleAfterMillis

/** The entries of this process, by frontend. */
export class Mappings extends Context.Service<
  Mappings,
  {
    /** Every change, and every settling of an answer, happens under this lock. */
    readonly lock: Semaphore.Semaphore
    readonly get: (key: string) => MappingEntry | undefined
    /**
     * The entries with a host port that collide with this frontend, itself included: by their own address, or by
     * the address that their shared socket is bound to.
     */
    readonly colliding: (protocol: Protocol, host: Address, port: number) => ReadonlyArray<MappingEntry>
    /** The entries with this host port, whatever their addresses; `colliding` and this leave standbys out. */
    readonly at: (protocol: Protocol, port: number) => ReadonlySet<MappingEntry>
    /** The standbys of a frontend, the oldest first. */
    readonly standbys: (frontend: Pick<Mapping, "protocol" | "host" | "port">) => ReadonlyArray<MappingEntry>
    readonly add: (entry: MappingEntry) => void
    readonly delete: (entry: MappingEntry) => void
    readonly all: () => MapIterator<MappingEntry>
    readonly size: () => number
    readonly engine: EngineEpoch
    readonly dirty: DirtyFlags
  }
>()("portmapper/mapper/Mappings") {
  static readonly layer = Layer.effect(Mappings, Effect.sync(make))
}

const none: ReadonlySet<MappingEntry> = new Set()

function make() {
  const byKey = new Map<string, MappingEntry>()
  const byPort = new Map<string, Set<MappingEntry>>()
  const standbys = new Map<string, ReadonlyArray<MappingEntry>>()
  const portKey = (protocol: Protocol, port: number) => `${protocolNumber[protocol]} ${port}`
  const withStandbys = (
    { mapping: { protocol, host, port } }: MappingEntry,
    change: (there: ReadonlyArray<MappingEntry>) => ReadonlyArray<MappingEntry>
  ) => {
    const key = frontendKey(protocol, host, port)
    const changed = change(standbys.get(key) ?? [])
    if (changed.length === 0) standbys.delete(key)
    else
      standbys.set(
        key,
        [...changed].sort((a, b) => a.mapping.sinceMillis - b.mapping.sinceMillis)
      )
  }

  return Mappings.of({
    lock: Semaphore.makeUnsafe(1),
    get: (key) => byKey.get(key),
    colliding: (protocol, host, port) => {
      const there = byPort.get(portKey(protocol, port))
      if (there === undefined) return []
      return [...there].filter(
        ({ mapping, resources: { hold } }) =>
          covers(mapping.host, host) ||
          covers(host, mapping.host) ||
          (hold !== undefined && covers(hold.socket.host, host))
      )
    },
    at: (protocol, port) => byPort.get(portKey(protocol, port)) ?? none,
    standbys: ({ protocol, host, port }) => standbys.get(frontendKey(protocol, host, port)) ?? [],
    add: (entry) => {
      byKey.set(mappingKey(entry.mapping), entry)
      if (entry.mapping.mode === "routed") return
      if (entry.mapping.standby) return withStandbys(entry, (others) => [...others, entry])
      const key = portKey(entry.mapping.protocol, entry.mapping.port)
      const there = byPort.get(key)
      if (there === undefined) byPort.set(key, new Set([entry]))
      else there.add(entry)
    },
    delete: (entry) => {
      const key = mappingKey(entry.mapping)
      if (byKey.get(key) === entry) byKey.delete(key)
      if (entry.mapping.standby)
        return withStandbys(entry, (others) => others.filter((other) => other !== entry))
      const port = portKey(entry.mapping.protocol, entry.mapping.port)
      const there = byPort.get(port)
      there?.delete(entry)
      if (there?.size === 0) byPort.delete(port)
    },
    all: () => byKey.values(),
    size: () => byKey.size,
    engine: { number: 0, sinceMillis: 0, activated: false },
    dirty: { table: false, record: false }
  })
}

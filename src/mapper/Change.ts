/**
 * Decides what a call changes on the host, as a value: what to evict, to reserve, to serve and to update. Pure: the
 * same entries, groups and time give the same change, or the same refusal. `Apply` carries it out.
 */
import { Result } from "effect"
import { flowsOfNarrowed } from "../firewall/Conntrack.ts"
import { type Hold, PortAllocated } from "../ports/PortAllocator.ts"
import { type GroupsError, isSession } from "../protocol/Driver.ts"
import {
  type Entry,
  endpointText,
  frontendText,
  type Group,
  type PortRequest,
  type ReleasedBinding
} from "../protocol/PortBinding.ts"
import { ownLabels, type Policy, policyText } from "./Labels.ts"
import {
  frontendKey,
  isConflicted,
  isPending,
  isStale,
  type Mapping,
  type MappingEntry,
  type Mappings,
  mappingKey,
  nextStatus,
  provisional,
  type Resources,
  routedKey,
  type Status,
  sameBackend,
  takeOver
} from "./Mapping.ts"
import { type Plan, resourcesOf, type Served } from "./Plan.ts"
import { plannedStandby, standsBehind, withStandbys } from "./Standby.ts"

type State = Mappings["Service"]

/** A requested group and its plan; `index` is its place among the groups of the call. */
export interface PlannedGroup {
  readonly index: number
  readonly group: Group
  readonly plan: Plan
}

/** The caller and the time of the call. `isGone`: whether the container behind an entry is known to be gone. */
export interface Asking {
  readonly owner: string
  readonly nowMillis: number
  readonly isGone: (entry: MappingEntry) => boolean
}

/** A mapping to create, on the port that is reserved for it. */
export interface Creation {
  readonly planned: Served
  readonly policy: Policy
  readonly mapping: Omit<Mapping, "port">
  readonly status: Status
  readonly replaces: ReadonlyArray<MappingEntry>
}

/** One port for a group: exactly the one requested, or any of a range. */
export interface Reservation {
  /** The group that a refusal names. */
  readonly index: number
  readonly ports: PortRequest
  /** Existing holds of the same group: these frontends don't collide with them. */
  readonly beside: ReadonlyArray<Hold>
  readonly create: ReadonlyArray<Creation>
  /**
   * For a range that has no port left: the entries that may be evicted to free one, grouped by port, the oldest
   * first.
   */
  readonly evictable: (gives: (port: number) => boolean) => ReadonlyArray<ReadonlyArray<MappingEntry>>
}

/** An entry that the call answers with, and its new state. */
export interface Update {
  readonly entry: MappingEntry
  readonly mapping: Mapping
  readonly status: Status
  readonly replaces: ReadonlyArray<MappingEntry>
  /** The same object where neither mode nor policy changes. */
  readonly resources: MappingEntry["resources"]
  /** Whether the record must be written. */
  readonly record: boolean
}

export interface Change {
  /** Entries in the way that may be evicted; `Apply` evicts them before it reserves anything. */
  readonly evict: ReadonlyArray<MappingEntry>
  readonly reserve: ReadonlyArray<Reservation>
  readonly update: ReadonlyArray<Update>
}

/** A mapping that a group requests, and the existing entries for it. */
interface Claim {
  readonly planned: Served
  /** The entry, if it is already mapped and served. */
  readonly entry: MappingEntry | undefined
  /** The same mapping in conflict; this claim creates it anew. */
  readonly conflicted: MappingEntry | undefined
  /** Entries of the same binding with a host port, where the claim wants none. */
  readonly replaces: ReadonlyArray<MappingEntry>
}

/** The entries in conflict that these groups request: the mapper tries to reactivate them before anything else. */
export const conflictedOf = (
  state: State,
  groups: ReadonlyArray<PlannedGroup>
): ReadonlyArray<MappingEntry> =>
  groups.flatMap(({ group, plan }) =>
    servedOf(plan).flatMap((planned) => {
      const entry = mappedAlready(state, planned, group.ports)
      return entry !== undefined && isConflicted(entry) ? [entry] : []
    })
  )

/** The holders in the way that may be evicted if their containers are gone: the mapper looks up their backends. */
export const doubtfulHolders = (
  state: State,
  groups: ReadonlyArray<PlannedGroup>,
  nowMillis: number
): ReadonlyArray<MappingEntry> =>
  groups.flatMap((each) =>
    holdersInTheWay(state, each, claimsOf(state, each))
      .flatMap(({ holders }) => holders)
      .filter(
        (holder) =>
          !isPending(holder) &&
          !isAbandoned(holder, state, nowMillis) &&
          nowMillis - holder.mapping.sinceMillis >= startMillis
      )
  )

/** A container's ports are published before it runs: for this long, its container does not count as gone. */
const startMillis = 30_000

/** The change that these groups make together; none of them conflicts with another (see `inSteps`). */
export const changeOf = (
  state: State,
  groups: ReadonlyArray<PlannedGroup>,
  asking: Asking
): Result.Result<Change, GroupsError<PortAllocated>> => {
  const claimed = groups.map((each) => ({ each, claims: claimsOf(state, each) }))
  const kept = new Set(claimed.flatMap(({ claims }) => claims.flatMap(({ entry }) => entry ?? [])))
  const isAbandonedNow = (entry: MappingEntry) =>
    !kept.has(entry) && !isPending(entry) && isAbandoned(entry, state, asking.nowMillis)
  const mayGo = (holder: MappingEntry) =>
    isAbandonedNow(holder) || (!isPending(holder) && asking.isGone(holder))
  const evict = new Set<MappingEntry>()
  const standby = new Set<Claim>()
  for (const { each, claims } of claimed)
    for (const { claim, frontend, holders } of holdersInTheWay(state, each, claims)) {
      const staying = holders.filter((holder) => !mayGo(holder))
      const [first] = staying
      if (first === undefined) for (const holder of holders) evict.add(holder)
      else if (standsBehind(holders, staying, claim.planned, asking.owner)) standby.add(claim)
      else
        return Result.fail({
          group: each.index,
          error: new PortAllocated({ frontend, hint: ` (${holderText(first)})` })
        })
    }
  const reserve: Array<Reservation> = []
  const update: Array<Update> = []
  for (const { each, claims } of claimed) {
    const fresh = claims.filter(({ entry }) => entry === undefined)
    reserve.push({
      index: each.index,
      ports: each.group.ports,
      beside: claims.flatMap(({ entry }) => entry?.resources.hold ?? []),
      create: fresh.map((claim) =>
        standby.has(claim)
          ? asStandby(creationOf(state, each, claim, asking))
          : creationOf(state, each, claim, asking)
      ),
      evictable: (gives) => evictableOf(state, fresh, gives, isAbandonedNow)
    })
    for (const { planned, entry, replaces } of claims)
      if (entry !== undefined) update.push(updateOf(state, { planned, entry, replaces }, each, asking))
  }
  return Result.succeed({ evict: [...evict], reserve, update })
}

/**
 * Splits the groups into steps: one group at a time where one may want what another one has; otherwise all
 * together.
 */
export const inSteps = (groups: ReadonlyArray<PlannedGroup>): ReadonlyArray<ReadonlyArray<PlannedGroup>> => {
  if (groups.length === 1) return [groups]
  const seen = new Set<string>()
  for (const { group } of groups) {
    const wanted = new Set(
      group.entries.flatMap(({ protocol, backend }) => [
        `${protocol} to ${endpointText(backend)}`,
        ...(group.ports._tag === "Exact" ? [`${protocol} at ${group.ports.port}`] : [])
      ])
    )
    for (const each of wanted) if (seen.has(each)) return groups.map((one) => [one])
    for (const each of wanted) seen.add(each)
  }
  return [groups]
}

/** A conflicted entry holds nothing: it is in the way only once its port is reserved for another. */
export const conflictedInTheWay = (
  state: State,
  created: ReadonlyArray<{ readonly mapping: Mapping }>
): ReadonlyArray<MappingEntry> => {
  const inTheWay = created.flatMap(({ mapping }) =>
    mapping.mode === "routed" || mapping.standby
      ? (state.get(mappingKey(mapping)) ?? [])
      : state.colliding(mapping.protocol, mapping.host, mapping.port)
  )
  return [...new Set(withStandbys(state, inTheWay.filter(isConflicted)))]
}

/** The flows that a change of policy ends: the kernel redirected them, from sources that are no longer allowed. */
export const flowsEnded = (swaps: ReadonlyArray<readonly [before: Resources, after: Resources]>) =>
  swaps.flatMap(([before, { rules, route }]) => {
    const [allow = route?.allow] = rules.flatMap((rule) => (rule._tag === "Guard" ? [] : [rule.allow]))
    return flowsOfNarrowed(before.rules, allow)
  })

/** The entries that these bindings name. */
export const releasedBy = (
  state: State,
  bindings: ReadonlyArray<ReleasedBinding>
): ReadonlyArray<MappingEntry> => {
  const found = bindings.flatMap(({ protocol, host, port, backend }) => {
    const published = [
      state.get(frontendKey(protocol, host, port)) ?? [],
      state.standbys({ protocol, host, port })
    ].flat()
    const named = published.filter((entry) => leadsTo(entry, backend))
    if (named.length > 0) return named
    if (backend.address === undefined) return []
    return state.get(routedKey(protocol, { address: backend.address, port: backend.port })) ?? []
  })
  return found.length > 1 ? [...new Set(found)] : found
}

const leadsTo = ({ mapping }: MappingEntry, { address, port }: ReleasedBinding["backend"]): boolean =>
  address === undefined ||
  port === 0 ||
  (mapping.backend.address.key === address.key && mapping.backend.port === port)

const servedOf = ({ entries }: Plan): ReadonlyArray<Served> =>
  entries.filter((planned) => planned._tag === "Served")

const claimsOf = (state: State, { group: { ports }, plan }: PlannedGroup): ReadonlyArray<Claim> => {
  const claims = new Map<string, Claim>()
  for (const planned of servedOf(plan)) {
    const there = mappedAlready(state, planned, ports)
    const [entry, conflicted] =
      there !== undefined && isConflicted(there) ? [undefined, there] : [there, undefined]
    // In routed mode several entries may be one mapping; the last of them stands for it.
    const { protocol, host, backend } = planned.entry
    const key = planned.mode === "routed" ? routedKey(protocol, backend) : frontendKey(protocol, host, 0)
    const published = replacedBy(state, planned, ports)
    const replaces = [...(claims.get(key)?.replaces ?? []), ...(published === undefined ? [] : [published])]
    claims.set(key, { planned, entry, conflicted, replaces })
  }
  return [...claims.values()]
}

/** The existing mapping of this entry, if it requests an exact port or no host port. */
const mappedAlready = (
  state: State,
  { entry, mode }: Served,
  ports: PortRequest
): MappingEntry | undefined => {
  if (mode !== "routed" && ports._tag !== "Exact") return undefined
  const key = { ...entry, port: ports._tag === "Exact" ? ports.port : 0, mode }
  return leadingTo(state.get(mappingKey(key)), entry) ?? state.get(mappingKey({ ...key, standby: true }))
}

/** The same binding with a host port, where the entry wants none. */
const replacedBy = (state: State, { entry, mode }: Served, ports: PortRequest): MappingEntry | undefined =>
  mode === "routed" && ports._tag === "Exact"
    ? leadingTo(state.get(frontendKey(entry.protocol, entry.host, ports.port)), entry)
    : undefined

const leadingTo = (entry: MappingEntry | undefined, { backend }: Entry): MappingEntry | undefined =>
  entry !== undefined && sameBackend(entry.mapping.backend, backend) ? entry : undefined

/** For each claim the holders of its port, with their standbys. */
const holdersInTheWay = (
  state: State,
  { group: { ports } }: PlannedGroup,
  claims: ReadonlyArray<Claim>
): ReadonlyArray<{
  readonly claim: Claim
  readonly frontend: string
  readonly holders: ReadonlyArray<MappingEntry>
}> => {
  if (ports._tag !== "Exact") return []
  return claims.flatMap((claim) => {
    const { protocol, host } = claim.planned.entry
    if (!claim.planned.reserves || claim.entry !== undefined) return []
    const holders = holdersOf(state, claim.planned, ports.port).filter(
      (holder) => !claims.some(({ entry }) => entry === holder)
    )
    return [{ claim, frontend: frontendText(protocol, host, ports.port), holders }]
  })
}

/** What holds this port of an entry's address, and the standbys. */
const holdersOf = (state: State, { entry: { protocol, host } }: Served, port: number) =>
  withStandbys(
    state,
    state.colliding(protocol, host, port).filter((holder) => !isConflicted(holder))
  )

/** No caller confirmed it, or it belongs to an earlier Engine and is stale. */
const isAbandoned = (entry: MappingEntry, { engine }: State, nowMillis: number): boolean =>
  entry.status._tag === "Unconfirmed" || isStale(entry, engine, nowMillis)

const evictableOf = (
  state: State,
  fresh: ReadonlyArray<Claim>,
  gives: (port: number) => boolean,
  mayGo: (entry: MappingEntry) => boolean
): ReadonlyArray<ReadonlyArray<MappingEntry>> => {
  const abandoned = [...state.all()]
    .filter((entry) => entry.mapping.mode !== "routed" && gives(entry.mapping.port) && mayGo(entry))
    .sort((a, b) => a.mapping.sinceMillis - b.mapping.sinceMillis)
  return [...new Set(abandoned.map(({ mapping }) => mapping.port))].flatMap((port) => {
    const holders = new Set(fresh.flatMap(({ planned }) => holdersOf(state, planned, port)))
    return holders.size > 0 && [...holders].every(mayGo) ? [[...holders]] : []
  })
}

const creationOf = (
  { engine: { number: epoch } }: State,
  { group: { labels }, plan: { policy } }: PlannedGroup,
  { planned, conflicted, replaces }: Claim,
  { owner, nowMillis }: Asking
): Creation => {
  const { entry, mode } = planned
  const { protocol, host, requestedAddress, backend } = entry
  return {
    planned,
    policy,
    mapping: {
      ...{ protocol, host, requestedAddress, backend, mode, labels: ownLabels(labels) },
      ...{ owner, epoch, sinceMillis: nowMillis }
    },
    status: conflicted === undefined ? provisional : takeOver(provisional, conflicted.status),
    replaces
  }
}

/** Holds nothing until it takes over. */
const asStandby = ({ planned, mapping, ...creation }: Creation): Creation => ({
  ...creation,
  planned: plannedStandby(planned),
  mapping: { ...mapping, standby: true }
})

const updateOf = (
  { engine: { number: epoch } }: State,
  { planned, entry, replaces }: Pick<Claim, "planned" | "replaces"> & { readonly entry: MappingEntry },
  { group: { labels }, plan: { policy } }: PlannedGroup,
  asking: Asking
): Update => {
  const { mapping, resources } = entry
  const { requestedAddress } = planned.entry
  const status = nextStatus(entry.status, "asked")
  // An unconfirmed entry now belongs to this caller, even if another one requested it first.
  const unconfirmed = entry.status._tag === "Unconfirmed"
  const owner = unconfirmed || handsOver(mapping.owner, asking.owner) ? asking.owner : mapping.owner
  const renewed = unconfirmed || asking.owner === "engine" ? epoch : mapping.epoch
  const samePolicy = mapping.mode === planned.mode && policyText(mapping.labels) === policyText(labels)
  if (samePolicy && !unconfirmed && owner === mapping.owner) {
    const record = renewed !== mapping.epoch
    const same = record ? { ...mapping, epoch: renewed } : mapping
    return { entry, mapping: same, status, replaces, resources, record }
  }
  return {
    entry,
    mapping: {
      ...mapping,
      ...{ mode: planned.mode, labels: ownLabels(labels), requestedAddress, owner, epoch: renewed }
    },
    status,
    replaces,
    resources:
      samePolicy || mapping.standby ? resources : resourcesOf(planned, policy, mapping.port, resources.hold),
    record: true
  }
}

/**
 * Owners of the form `KIND:NAME` follow each other at a backend address: the new owner takes the mapping over, and
 * a late release by the previous one no longer applies. A session, which may end before any other owner, gives its
 * mapping to whichever asks next. Any other owner keeps its mappings.
 */
const handsOver = (from: string, to: string): boolean => {
  if (isSession(from) && !isSession(to)) return true
  const kind = to.slice(0, to.indexOf(":") + 1)
  return kind !== "" && from !== to && from.startsWith(kind)
}

/** The owner of the port, since when it holds it, and how to free it. */
const holderText = ({ mapping }: MappingEntry): string => {
  const { protocol, backend, owner, sinceMillis } = mapping
  const since = new Date(sinceMillis).toISOString()
  const to = `${backend.address.text} port ${backend.port}`
  return `held by ${owner} for ${to} since ${since}; free it with: portmapper unmap -p ${frontendText(protocol, mapping.host, mapping.port)} --owner any`
}

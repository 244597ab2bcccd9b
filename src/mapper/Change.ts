/**
 * Decides what a call changes on the host, as a value: what to evict, to reserve, to serve and to update. Pure: the
 * same entries, groups and time give the same change, or the same refusal. `Apply` carries it out.
 */
import { Result } from "effect"
import { flowsOfNarrowed } from "../firewall/Conntrack.ts"
import { type Hold, PortAllocated } from "../ports/PortAllocator.ts"
import type { GroupsError } from "../protocol/Driver.ts"
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
  memberKey,
  nextStatus,
  provisional,
  type Resources,
  routedKey,
  type Share,
  type Status,
  sameBackend,
  takeOver
} from "./Mapping.ts"
import { type Plan, resourcesOf, type Served } from "./Plan.ts"
import {
  areFellows,
  type Candidate,
  holdsOfService,
  join,
  type Reshare,
  refusalOf,
  resourcesWith,
  type ServiceRefused,
  serviceOf
} from "./Services.ts"

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
  /** Other backends of the services that new entries join: they get other slots. */
  readonly reshare: ReadonlyArray<Update>
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
  groups: ReadonlyArray<PlannedGroup>,
  owner: string
): ReadonlyArray<MappingEntry> =>
  groups.flatMap(({ group, plan }) =>
    servedOf(plan).flatMap((planned) => {
      const entry = mappedAlready(state, planned, group.ports, serviceOf(plan.policy, owner))
      return entry !== undefined && isConflicted(entry) ? [entry] : []
    })
  )

/** The holders in the way that may be evicted if their containers are gone: the mapper looks up their backends. */
export const doubtfulHolders = (
  state: State,
  groups: ReadonlyArray<PlannedGroup>,
  { owner, nowMillis }: Pick<Asking, "owner" | "nowMillis">
): ReadonlyArray<MappingEntry> =>
  groups.flatMap((each) =>
    holdersInTheWay(state, each, claimsOf(state, each, owner), owner).flatMap(({ holder }) =>
      !isPending(holder) &&
      !isAbandoned(holder, state, nowMillis) &&
      nowMillis - holder.mapping.sinceMillis >= startMillis
        ? [holder]
        : []
    )
  )

/** A container's ports are published before it runs: for this long, its container does not count as gone. */
const startMillis = 30_000

/** The change that these groups make together; none of them conflicts with another (see `inSteps`). */
export const changeOf = (
  state: State,
  groups: ReadonlyArray<PlannedGroup>,
  asking: Asking
): Result.Result<Change, GroupsError<PortAllocated | ServiceRefused>> => {
  const claimed = groups.map((each) => ({ each, claims: claimsOf(state, each, asking.owner) }))
  const kept = new Set(claimed.flatMap(({ claims }) => claims.flatMap(({ entry }) => entry ?? [])))
  const isAbandonedNow = (entry: MappingEntry) =>
    !kept.has(entry) && !isPending(entry) && isAbandoned(entry, state, asking.nowMillis)
  const evict = new Set<MappingEntry>()
  for (const { each, claims } of claimed)
    for (const { frontend, holder } of holdersInTheWay(state, each, claims, asking.owner)) {
      const mayGo = isAbandonedNow(holder) || (!isPending(holder) && asking.isGone(holder))
      if (!mayGo)
        return Result.fail({
          group: each.index,
          error: new PortAllocated({ frontend, hint: ` (${holderText(holder)})` })
        })
      evict.add(holder)
    }
  const staying = stateWithout(state, evict)
  const reserve: Array<Reservation> = []
  const update: Array<Update> = []
  const reshare: Array<Update> = []
  for (const { each, claims } of claimed) {
    const candidates = claims.flatMap((claim) => candidateOf(each, claim, asking) ?? [])
    for (const candidate of candidates) {
      const error = refusalOf(staying, candidate)
      if (error !== undefined) return Result.fail({ group: each.index, error })
    }
    const fresh = claims.filter(({ entry }) => entry === undefined)
    const joined = fresh.map((claim) => {
      const candidate = candidateOf(each, claim, asking)
      return candidate === undefined ? undefined : join(staying, candidate)
    })
    reshare.push(...joined.flatMap((one) => one?.others.map(updateOfShare) ?? []))
    reserve.push({
      index: each.index,
      ports: each.group.ports,
      beside: [
        ...claims.flatMap(({ entry }) => entry?.resources.hold ?? []),
        ...candidates.flatMap((candidate) => holdsOfService(staying, candidate))
      ],
      create: fresh.map((claim, at) => creationOf(state, each, claim, asking, joined[at]?.share)),
      evictable: (gives) => evictableOf(state, fresh, gives, isAbandonedNow)
    })
    for (const { planned, entry, replaces } of claims)
      if (entry !== undefined) update.push(updateOf(state, { planned, entry, replaces }, each, asking))
  }
  return Result.succeed({ evict: [...evict], reserve, update, reshare })
}

/** What a service has once these entries are evicted. */
const stateWithout = (state: State, evicted: ReadonlySet<MappingEntry>): Pick<State, "colliding"> =>
  evicted.size === 0
    ? state
    : {
        colliding: (protocol, host, port) =>
          state.colliding(protocol, host, port).filter((entry) => !evicted.has(entry))
      }

const candidateOf = (
  { group: { ports, labels }, plan: { policy } }: PlannedGroup,
  { planned: { entry, mode }, entry: own, conflicted }: Claim,
  { owner }: Asking
): Candidate | undefined => {
  const service = serviceOf(policy, owner)
  if (service === undefined || ports._tag !== "Exact") return undefined
  const { protocol, host } = entry
  const frontend = { protocol, host, port: ports.port }
  return { frontend, service, mode, labels, policy, own, before: conflicted?.mapping.share }
}

const updateOfShare = ({ entry, share }: Reshare): Update => ({
  entry,
  mapping: { ...entry.mapping, share },
  status: entry.status,
  replaces: [],
  resources: resourcesWith(entry.resources, share),
  record: true
})

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

/**
 * A conflicted entry holds nothing: it is in the way only once its port is reserved for another, or once its service
 * has another policy.
 */
export const conflictedInTheWay = (
  state: State,
  changed: ReadonlyArray<{ readonly mapping: Mapping }>
): ReadonlyArray<MappingEntry> => {
  const inTheWay = changed.flatMap(({ mapping }) =>
    mapping.mode === "routed"
      ? (state.get(mappingKey(mapping)) ?? [])
      : state
          .colliding(mapping.protocol, mapping.host, mapping.port)
          .filter((other) => !areFellows(mapping, other.mapping))
  )
  return [...new Set(inTheWay.filter(isConflicted))]
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
    const published = state.get(frontendKey(protocol, host, port))
    if (published !== undefined && leadsTo(published, backend)) return published
    const members = state
      .colliding(protocol, host, port)
      .filter(
        (entry) =>
          entry.mapping.share !== undefined && entry.mapping.host.key === host.key && leadsTo(entry, backend)
      )
    if (members.length > 0) return members
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

const claimsOf = (
  state: State,
  { group: { ports }, plan }: PlannedGroup,
  owner: string
): ReadonlyArray<Claim> => {
  const service = serviceOf(plan.policy, owner)
  const claims = new Map<string, Claim>()
  for (const planned of servedOf(plan)) {
    const there = mappedAlready(state, planned, ports, service)
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

/** The existing mapping of this entry, if it requests an exact port or no host port. In another service it is another. */
const mappedAlready = (
  state: State,
  { entry, mode }: Served,
  ports: PortRequest,
  service: string | undefined
): MappingEntry | undefined => {
  if (mode !== "routed" && ports._tag !== "Exact") return undefined
  const port = ports._tag === "Exact" ? ports.port : 0
  const there = leadingTo(state.get(mappingKey({ ...entry, port, mode, share: service })), entry)
  return mode === "routed" || there?.mapping.share?.service === service ? there : undefined
}

/** The same binding with a host port, its own or a service's, where the entry wants none. */
const replacedBy = (state: State, { entry, mode }: Served, ports: PortRequest): MappingEntry | undefined => {
  if (mode !== "routed" || ports._tag !== "Exact") return undefined
  const frontend = frontendKey(entry.protocol, entry.host, ports.port)
  return leadingTo(state.get(frontend) ?? state.get(memberKey(frontend, entry.backend)), entry)
}

const leadingTo = (entry: MappingEntry | undefined, { backend }: Entry): MappingEntry | undefined =>
  entry !== undefined && sameBackend(entry.mapping.backend, backend) ? entry : undefined

const holdersInTheWay = (
  state: State,
  { group: { ports }, plan: { policy } }: PlannedGroup,
  claims: ReadonlyArray<Claim>,
  owner: string
): ReadonlyArray<{ readonly frontend: string; readonly holder: MappingEntry }> => {
  if (ports._tag !== "Exact") return []
  const service = serviceOf(policy, owner)
  const isOfService = ({ mapping: { share } }: MappingEntry) =>
    share !== undefined && share.service === service
  return claims.flatMap(({ planned: { entry, reserves }, entry: own }) => {
    if (!reserves || own !== undefined) return []
    const { protocol, host } = entry
    const colliding = state.colliding(protocol, host, ports.port)
    // A member on the same address has a socket to share, whatever other addresses the service is on.
    const holders = colliding.filter((holder) => !isConflicted(holder))
    const joins = holders.some((holder) => isOfService(holder) && holder.mapping.host.key === host.key)
    return holders
      .filter((holder) => !(joins && isOfService(holder)) && !claims.some((claim) => claim.entry === holder))
      .map((holder) => ({ frontend: frontendText(protocol, host, ports.port), holder }))
  })
}

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
    const holders = new Set(
      fresh.flatMap(
        ({
          planned: {
            entry: { protocol, host }
          }
        }) => state.colliding(protocol, host, port).filter((holder) => !isConflicted(holder))
      )
    )
    return holders.size > 0 && [...holders].every(mayGo) ? [[...holders]] : []
  })
}

const creationOf = (
  { engine: { number: epoch } }: State,
  { group: { labels }, plan: { policy } }: PlannedGroup,
  { planned, conflicted, replaces }: Claim,
  { owner, nowMillis }: Asking,
  share: Share | undefined
): Creation => {
  const { entry, mode } = planned
  const { protocol, host, requestedAddress, backend } = entry
  return {
    planned,
    policy,
    mapping: {
      ...{ protocol, host, requestedAddress, backend, mode, labels: ownLabels(labels) },
      ...{ owner, epoch, sinceMillis: nowMillis },
      ...(share === undefined ? {} : { share })
    },
    status: conflicted === undefined ? provisional : takeOver(provisional, conflicted.status),
    replaces
  }
}

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
  // Only a service's single backend can change how the service balances.
  const share = mapping.share && { ...mapping.share, balance: policy.balance ?? "random" }
  const next = {
    ...mapping,
    ...{ mode: planned.mode, labels: ownLabels(labels), requestedAddress, owner, epoch: renewed },
    ...(share === undefined ? {} : { share })
  }
  return {
    entry,
    mapping: next,
    status,
    replaces,
    resources: samePolicy ? resources : resourcesOf(planned, policy, next, resources.hold),
    record: true
  }
}

/**
 * Owners of the form `KIND:NAME` follow each other at a backend address: the new owner takes the mapping over, and
 * a late release by the previous one no longer applies. Any other owner keeps its mappings.
 */
const handsOver = (from: string, to: string): boolean => {
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

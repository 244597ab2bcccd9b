/** What groups claim, and which entries are in the way of it. Pure. */

import { containerLabel } from "../../protocol/FollowLabels.ts"
import {
  type Entry,
  endpointText,
  frontendText,
  type Group,
  type Labels,
  meansBackend,
  type PortRequest,
  type ReleasedBinding,
  sameBackend
} from "../../protocol/PortBinding.ts"
import { idleLabel } from "../model/Labels.ts"
import {
  frontendKey,
  isAnsweredConflict,
  isConflicted,
  isPending,
  isStale,
  type MappingEntry,
  type Mappings,
  mappingKey,
  memberKey,
  routedKey
} from "../model/Mapping.ts"
import type { Plan, Served } from "./Plan.ts"
import { backendsAt, isMember, serviceOf } from "./Services.ts"
import { withStandbys } from "./Standby.ts"

type State = Mappings["Service"]

/** A requested group and its plan; `index` is its place among the groups of the call. */
export interface PlannedGroup {
  readonly index: number
  readonly group: Group
  readonly plan: Plan
}

/** A mapping that a group requests, and the existing entries for it. */
export interface Claim {
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
  groups.flatMap((each) =>
    servedOf(each.plan).flatMap((planned) => {
      const entry = mappedAlready(state, planned, each, owner)
      return entry !== undefined && isConflicted(entry) ? [entry] : []
    })
  )

/**
 * The answered entries in conflict on the ports that these groups reserve: the mapper tries to reactivate them before
 * another mapping gets such a port. Fellow backends share it, and stale entries lose it.
 */
export const answeredInTheWay = (
  state: State,
  groups: ReadonlyArray<PlannedGroup>,
  { owner, nowMillis }: { readonly owner: string; readonly nowMillis: number }
): ReadonlyArray<MappingEntry> => {
  const found = groups.flatMap((each) => {
    const { ports } = each.group
    if (ports._tag !== "Exact") return []
    const service = serviceOf(each.plan.policy, owner)
    return servedOf(each.plan).flatMap((planned) => {
      if (!planned.reserves) return []
      const inTheWay = answeredConflictsAt(state, planned.entry, ports.port, nowMillis)
      if (inTheWay.length === 0) return []
      const own = mappedAlready(state, planned, each, owner)
      if (own !== undefined && !isConflicted(own)) return []
      return inTheWay.filter((entry) => entry !== own && !isMember(entry, service))
    })
  })
  return [...new Set(found)]
}

/** The answered entries in conflict that collide with this frontend, without stale ones. */
export const answeredConflictsAt = (
  state: State,
  { protocol, host }: Pick<Entry, "protocol" | "host">,
  port: number,
  nowMillis: number
): ReadonlyArray<MappingEntry> =>
  state
    .colliding(protocol, host, port)
    .filter((entry) => isAnsweredConflict(entry) && !isStale(entry, state.engine, nowMillis))

/** The holders in the way that may be evicted if their containers are gone: the mapper looks up their backends. */
export const doubtfulHolders = (
  state: State,
  groups: ReadonlyArray<PlannedGroup>,
  { owner, nowMillis }: { readonly owner: string; readonly nowMillis: number }
): ReadonlyArray<MappingEntry> =>
  groups.flatMap((each) =>
    holdersInTheWay(state, each, claimsOf(state, each, owner), owner)
      .flatMap(({ holders }) => holders)
      .filter(
        (holder) =>
          !isPending(holder) &&
          !isAbandoned(holder, state, nowMillis) &&
          nowMillis - holder.askedMillis >= startMillis
      )
  )

/** A container's ports are published before it runs: for this long, its container does not count as gone. */
const startMillis = 30_000

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

/** The entries that these bindings name. */
export const releasedBy = (
  state: State,
  bindings: ReadonlyArray<ReleasedBinding>
): ReadonlyArray<MappingEntry> => {
  const found = bindings.flatMap(({ protocol, host, port, backend }) => {
    const published = [
      state.get(frontendKey(protocol, host, port)) ?? backendsAt(state, { protocol, host, port }),
      state.standbys({ protocol, host, port })
    ].flat()
    const named = published.filter(({ mapping }) => meansBackend(backend, mapping.backend))
    if (named.length > 0) return named
    if (backend.address === undefined) return []
    return state.get(routedKey(protocol, { address: backend.address, port: backend.port })) ?? []
  })
  return found.length > 1 ? [...new Set(found)] : found
}

const servedOf = ({ entries }: Plan): ReadonlyArray<Served> =>
  entries.filter((planned) => planned._tag === "Served")

export const claimsOf = (state: State, group: PlannedGroup, owner: string): ReadonlyArray<Claim> => {
  const { plan } = group
  const { ports } = group.group
  const claims = new Map<string, Claim>()
  for (const planned of servedOf(plan)) {
    const there = mappedAlready(state, planned, group, owner)
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
  { group: { ports, labels }, plan: { policy } }: PlannedGroup,
  owner: string
): MappingEntry | undefined => {
  if (mode !== "routed" && ports._tag !== "Exact") return undefined
  const service = serviceOf(policy, owner)
  const key = { ...entry, port: ports._tag === "Exact" ? ports.port : 0, mode, share: service }
  const held = state.get(mappingKey(key))
  const there = leadingTo(held, entry) ?? (held && isMoved(held, labels, owner) ? held : undefined)
  // In another service it is another mapping.
  const same = mode === "routed" || there?.mapping.share?.service === service
  return (same ? there : undefined) ?? state.get(mappingKey({ ...key, standby: true }))
}

/**
 * Whether it is the request's own mapping, to another address of its container: one is idle, since the container has no
 * address before it runs.
 */
const isMoved = ({ mapping }: MappingEntry, labels: Labels, owner: string): boolean => {
  const container = labels.get(containerLabel)
  return (
    container !== undefined &&
    container === mapping.labels.get(containerLabel) &&
    owner === mapping.owner &&
    mapping.mode !== "routed" &&
    (labels.has(idleLabel) || mapping.labels.has(idleLabel))
  )
}

/** The same binding with a host port, its own or a service's, where the entry wants none. */
const replacedBy = (state: State, { entry, mode }: Served, ports: PortRequest): MappingEntry | undefined => {
  if (mode !== "routed" || ports._tag !== "Exact") return undefined
  const frontend = frontendKey(entry.protocol, entry.host, ports.port)
  return leadingTo(state.get(frontend) ?? state.get(memberKey(frontend, entry.backend)), entry)
}

const leadingTo = (entry: MappingEntry | undefined, { backend }: Entry): MappingEntry | undefined =>
  entry !== undefined && sameBackend(entry.mapping.backend, backend) ? entry : undefined

/** For each claim the holders of its port, with their standbys. */
export const holdersInTheWay = (
  state: State,
  { group: { ports }, plan: { policy } }: PlannedGroup,
  claims: ReadonlyArray<Claim>,
  owner: string
): ReadonlyArray<{
  readonly claim: Claim
  readonly frontend: string
  readonly holders: ReadonlyArray<MappingEntry>
}> => {
  if (ports._tag !== "Exact") return []
  const service = serviceOf(policy, owner)
  return claims.flatMap((claim) => {
    const { protocol, host } = claim.planned.entry
    if (!claim.planned.reserves || claim.entry !== undefined) return []
    const there = holdersOf(state, claim.planned, ports.port)
    // A member on the same address has a socket to share, whatever other addresses the service is on.
    const joins = there.some((holder) => isMember(holder, service) && holder.mapping.host.key === host.key)
    const holders = there.filter(
      (holder) => !(joins && isMember(holder, service)) && !claims.some(({ entry }) => entry === holder)
    )
    return [{ claim, frontend: frontendText({ protocol, host, port: ports.port }), holders }]
  })
}

/** What holds this port of an entry's address, and the standbys. */
const holdersOf = (state: State, { entry: { protocol, host } }: Served, port: number) =>
  withStandbys(
    state,
    state.colliding(protocol, host, port).filter((holder) => !isConflicted(holder))
  )

/** No caller confirmed it, or it belongs to an earlier Engine and is stale. */
export const isAbandoned = (entry: MappingEntry, { engine }: State, nowMillis: number): boolean =>
  entry.status._tag === "Unconfirmed" || isStale(entry, engine, nowMillis)

export const evictableOf = (
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

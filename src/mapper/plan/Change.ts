/**
 * Decides what a call changes on the host, as a value: what to evict, to reserve, to serve and to update. Pure: the
 * same entries, groups and time give the same change, or the same refusal. `Apply` carries it out.
 */
import { Result } from "effect"
import { flowsOfNarrowed } from "../../firewall/Conntrack.ts"
import { type Hold, PortAllocated } from "../../ports/PortAllocator.ts"
import { type GroupsError, isSession } from "../../protocol/Driver.ts"
import { followedInterface } from "../../protocol/FollowLabels.ts"
import { frontendText, type PortRequest, sameBackend } from "../../protocol/PortBinding.ts"
import { isRestingPlace } from "../../protocol/RestingPlace.ts"
import { serviceName } from "../../protocol/ServiceName.ts"
import { ownLabels, type Policy, policyText } from "../model/Labels.ts"
import {
  backendText,
  isConflicted,
  isPending,
  type Mapping,
  type MappingEntry,
  type Mappings,
  mappingKey,
  nextStatus,
  provisional,
  type Resources,
  type Status,
  takeOver,
  takesTraffic
} from "../model/Mapping.ts"
import {
  type Claim,
  claimsOf,
  evictableOf,
  holdersInTheWay,
  isAbandoned,
  type PlannedGroup
} from "./Claims.ts"
import { resourcesOf, type Served } from "./Plan.ts"
import {
  areFellows,
  type Candidate,
  holdsOfService,
  join,
  type Reshare,
  refusalOf,
  resourcesWith,
  type ServiceRefused,
  serviceOf,
  without
} from "./Services.ts"
import { plannedStandby, standsBehind, withStandbys } from "./Standby.ts"

type State = Mappings["Service"]

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
  const mayGo = (holder: MappingEntry) =>
    isAbandonedNow(holder) || (!isPending(holder) && asking.isGone(holder))
  const evict = new Set<MappingEntry>()
  const standby = new Set<Claim>()
  for (const { each, claims } of claimed)
    for (const { claim, frontend, holders } of holdersInTheWay(state, each, claims, asking.owner)) {
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
  const left = without(state, evict)
  const reserve: Array<Reservation> = []
  const update: Array<Update> = []
  const reshare: Array<Update> = []
  for (const { each, claims } of claimed) {
    const candidates = new Map(
      claims.flatMap((claim) => {
        const candidate = candidateOf(state, each, claim, asking)
        return candidate === undefined ? [] : [[claim, candidate] as const]
      })
    )
    for (const candidate of candidates.values()) {
      const error = refusalOf(left, candidate)
      if (error !== undefined) return Result.fail({ group: each.index, error })
    }
    const joining = (claim: Claim) => {
      const candidate = candidates.get(claim)
      const joined = candidate && join(left, candidate)
      reshare.push(...(joined?.others.map(updateOfShare) ?? []))
      return joined?.share
    }
    const fresh = claims.filter(({ entry }) => entry === undefined)
    reserve.push({
      index: each.index,
      ports: each.group.ports,
      beside: [
        ...claims.flatMap(({ entry }) => entry?.resources.hold ?? []),
        ...[...candidates.values()].flatMap((candidate) => holdsOfService(left, candidate))
      ],
      create: fresh.map((claim) => {
        const creation = creationOf(state, each, claim, asking)
        if (standby.has(claim)) return asStandby(creation)
        const share = joining(claim)
        return share === undefined ? creation : { ...creation, mapping: { ...creation.mapping, share } }
      }),
      evictable: (gives) => evictableOf(state, fresh, gives, isAbandonedNow)
    })
    for (const claim of claims) {
      const { planned, entry, replaces } = claim
      if (entry === undefined) continue
      const changes =
        takesTraffic(entry.mapping) !== takesTraffic({ ...entry.mapping, labels: each.group.labels })
      const share = changes ? joining(claim) : entry.mapping.share
      update.push(updateOf(state, { planned, entry, replaces, share }, each, asking))
    }
  }
  return Result.succeed({ evict: [...evict], reserve, update, reshare })
}

const candidateOf = (
  state: State,
  planned: PlannedGroup,
  claim: Claim,
  { owner }: Asking
): Candidate | undefined => {
  const {
    group: { ports, labels },
    plan: { policy }
  } = planned
  const { entry: own, conflicted } = claim
  const { mode } = claim.planned
  const service = serviceOf(policy, owner)
  if (service === undefined || ports._tag !== "Exact") return undefined
  const { protocol, host } = claim.planned.entry
  const frontend = { protocol, host, port: ports.port }
  const before = (own ?? conflicted)?.mapping.share
  const drained = drainedOf(state, planned, claim, owner)
  return { frontend, service, mode, labels, policy, own, drained, before }
}

/** A mapping is drained as it was before, and one at a new address of an interface as at all the others. */
const drainedOf = (
  state: State,
  { group: { ports, labels } }: PlannedGroup,
  { planned: { entry }, entry: own, conflicted }: Claim,
  owner: string
): Mapping["drained"] => {
  const before = own ?? conflicted
  const name = followedInterface(labels)
  if (before !== undefined || name === undefined || ports._tag !== "Exact") return before?.mapping.drained
  const others = [...state.at(entry.protocol, ports.port)].filter(
    ({ mapping }) =>
      mapping.owner === owner &&
      sameBackend(mapping.backend, entry.backend) &&
      followedInterface(mapping.labels) === name
  )
  return others.length > 0 && others.every(({ mapping }) => mapping.drained) ? true : undefined
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
 * A conflicted entry holds nothing: it is in the way only once its port is reserved for another, or once its service
 * has another policy. Nothing is in the way of an entry that gets other slots alone, or is drained.
 */
export const conflictedInTheWay = (
  state: State,
  changed: ReadonlyArray<Pick<Update, "entry" | "mapping">>
): ReadonlyArray<MappingEntry> => {
  const asked = changed.filter(
    ({ entry, mapping }) => entry.mapping === mapping || entry.mapping.labels !== mapping.labels
  )
  const inTheWay = asked.flatMap(({ mapping }) =>
    mapping.mode === "routed" || mapping.standby
      ? (state.get(mappingKey(mapping)) ?? [])
      : state
          .colliding(mapping.protocol, mapping.host, mapping.port)
          .filter((other) => !areFellows(mapping, other.mapping))
  )
  return [...new Set(withStandbys(state, inTheWay.filter(isConflicted)))]
}

/** The flows that a change of policy ends: the kernel redirected them, from sources that are no longer allowed. */
export const flowsEnded = (swaps: ReadonlyArray<readonly [before: Resources, after: Resources]>) =>
  swaps.flatMap(([before, { rules, route }]) => {
    const [allow = route?.allow] = rules.flatMap((rule) => (rule._tag === "Guard" ? [] : [rule.allow]))
    return flowsOfNarrowed(before.rules, allow)
  })

const creationOf = (
  state: State,
  group: PlannedGroup,
  claim: Claim,
  { owner, nowMillis }: Asking
): Creation => {
  const { labels } = group.group
  const { policy } = group.plan
  const { planned, conflicted, replaces } = claim
  const { entry, mode } = planned
  const { protocol, host, requestedAddress, backend } = entry
  const epoch = state.engine.number
  const drained = drainedOf(state, group, claim, owner)
  return {
    planned,
    policy,
    mapping: {
      ...{ protocol, host, requestedAddress, backend, mode, labels: ownLabels(labels) },
      ...{ owner, epoch, sinceMillis: nowMillis, container: undefined },
      ...(drained ? { drained } : {})
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
  {
    planned,
    entry,
    replaces,
    share: part
  }: Pick<Claim, "planned" | "replaces"> & Pick<Mapping, "share"> & { readonly entry: MappingEntry },
  { group: { labels }, plan: { policy } }: PlannedGroup,
  asking: Asking
): Update => {
  const { mapping, resources } = entry
  const { requestedAddress, backend } = planned.entry
  const status = nextStatus(entry.status, "asked")
  // An unconfirmed entry now belongs to this caller, even if another one requested it first.
  const unconfirmed = entry.status._tag === "Unconfirmed"
  const owner = unconfirmed || handsOver(mapping.owner, asking.owner) ? asking.owner : mapping.owner
  const renewed = unconfirmed || asking.owner === "engine" ? epoch : mapping.epoch
  const samePolicy = mapping.mode === planned.mode && policyText(mapping.labels) === policyText(labels)
  const stays = sameBackend(mapping.backend, backend)
  // Another of its containers may have the address by now.
  const container = owner === asking.owner || !stays ? undefined : mapping.container
  if (stays && samePolicy && !unconfirmed && owner === mapping.owner) {
    const record = renewed !== mapping.epoch || container !== mapping.container
    const same = record ? { ...mapping, epoch: renewed, container } : mapping
    return { entry, mapping: same, status, replaces, resources, record }
  }
  // Only a service's single backend can change how the service balances.
  const share = part && { ...part, balance: policy.balance ?? "random" }
  const next = {
    ...mapping,
    ...{ mode: planned.mode, labels: ownLabels(labels), requestedAddress, backend },
    ...{ owner, epoch: renewed, container },
    ...(share === undefined ? {} : { share })
  }
  return {
    entry,
    mapping: next,
    status,
    replaces,
    resources:
      (samePolicy && stays) || mapping.standby
        ? resources
        : resourcesOf(planned, policy, next, resources.hold),
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
  const { protocol, host, port, backend, labels, owner, sinceMillis, share } = mapping
  const name = followedInterface(labels)
  const frontend = name === undefined ? frontendText({ protocol, host, port }) : `${name}:${port}/${protocol}`
  const since = new Date(sinceMillis).toISOString()
  // What frees the port unmaps all backends of a service.
  const [to, gone] =
    share === undefined
      ? [
          `${isRestingPlace(backend.address) ? backendText(mapping) : backend.address.text} port ${backend.port}`,
          "that container is"
        ]
      : [`service ${serviceName(share.service)}`, "all of its containers are"]
  return `held by ${owner} for ${to} since ${since}; if ${gone} gone: portmapper unmap -p ${frontend} --owner any`
}

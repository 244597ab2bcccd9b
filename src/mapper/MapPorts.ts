/**
 * `mapPorts`: publishes a group, or several at once. Plan, reserve, record, redirect, relay, answer; each step undoes the
 * ones before it when it fails, and all of it is undone when the call is interrupted or its answer can't be delivered.
 */
import { Clock, Effect, Exit, Result, Scope } from "effect"
import { type ConntrackError, flowsOfAdded, flowsOfRemoved, forgetFlows } from "../firewall/Conntrack.ts"
import { type FirewallError, withoutRules } from "../firewall/Firewall.ts"
import type { Hold, PortError } from "../ports/PortAllocator.ts"
import { CurrentOwner, type GroupsError } from "../protocol/Driver.ts"
import {
  type Entry,
  endpointText,
  type Group,
  type PortBinding,
  type PortRequest
} from "../protocol/PortBinding.ts"
import { type RelayError, reroute } from "../relay/Relay.ts"
import { type Answering, confirm, retract } from "./Answered.ts"
import { type GiveWay, givingWay, isAbandoned, type Placement, settleConflicts } from "./Conflicts.ts"
import { type Host, host, type MapperServices } from "./Host.ts"
import { policyText } from "./Labels.ts"
import { isConflicted, type Live, type Mapping, mappingKey, type Replaced } from "./Mapping.ts"
import type { StoreError } from "./MappingStore.ts"
import { narrowedFlows } from "./Narrowed.ts"
import { bindingOf, type Plan, type PlanError, planGroup, routeOf, rulesOf, type Served } from "./Plan.ts"
import { repair } from "./Reconcile.ts"
import { comeBack, relayAsBefore } from "./Recover.ts"
import { type Step, told, transaction } from "./Transaction.ts"
import type { UnmapError } from "./UnmapPorts.ts"

export type MapError = PlanError | PlaceError
export type PlaceError = PortError | FirewallError | ConntrackError | RelayError | StoreError | UnmapError

/**
 * Publishes a group and answers one binding per entry, in order. What is mapped already is answered as before; with other
 * labels its policy is replaced. The scope is the delivery of the answer: closed with a failure, what this call created or
 * changed is undone, unless another call has answered with it meanwhile.
 */
export const mapPorts = (
  group: Group
): Effect.Effect<ReadonlyArray<PortBinding>, MapError, MapperServices | Scope.Scope> =>
  Effect.flatMap(host, (on) => mapPortsOn(on, group))

export const mapPortsOn = (
  on: Host,
  group: Group
): Effect.Effect<ReadonlyArray<PortBinding>, MapError, Scope.Scope> =>
  Effect.map(publish(on, [group], { group: undefined }), ([bindings = []]) => bindings)

/**
 * The same for several groups: all of them or none, in one transaction of the record and one of the kernel, however many
 * they are. An error tells whose it is; `undefined` where it is that of all together.
 */
export const mapGroupsOn = (
  on: Host,
  groups: ReadonlyArray<Group>
): Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, GroupsError<MapError>, Scope.Scope> =>
  Effect.suspend(() => {
    const progress: Progress = { group: undefined }
    const oneByOne = Effect.forEach(groups, (group, index) => {
      progress.group = index
      return mapPortsOn(on, group)
    })
    return Effect.mapError(
      meet(groups) ? oneByOne : publish(on, groups, progress),
      (error): GroupsError<MapError> => ({ group: progress.group, error })
    )
  })

/** The group that is being seen to, or `undefined` where all are together. */
interface Progress {
  group: number | undefined
}

/** Whether one group may want what another one has: they are to be seen to one after the other. */
const meet = (groups: ReadonlyArray<Group>): boolean => {
  const seen = new Set<string>()
  for (const { entries, ports } of groups) {
    const wanted = new Set(
      entries.flatMap(({ protocol, backend }) => [
        `${protocol} to ${endpointText(backend)}`,
        ...(ports._tag === "Exact" ? [`${protocol} at ${ports.port}`] : [])
      ])
    )
    for (const each of wanted) if (seen.has(each)) return true
    for (const each of wanted) seen.add(each)
  }
  return false
}

const publish = (
  on: Host,
  groups: ReadonlyArray<Group>,
  progress: Progress
): Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, MapError, Scope.Scope> =>
  // From the first step to the delivery there is no moment in which an interruption could forget what was done.
  Effect.uninterruptibleMask((restore) => {
    const asked: Array<Asked> = []
    for (const [index, group] of groups.entries()) {
      progress.group = index
      const plan = planGroup(group, on.capabilities)
      if (Result.isFailure(plan)) return Effect.fail<MapError>(plan.failure)
      asked.push({ group, plan: plan.success })
    }
    if (asked.every(({ plan }) => plan.entries.length === 0)) return Effect.succeed(groups.map(() => []))
    return Effect.flatMap(on.mappings.lock.alone(place(on, asked, progress), restore), (placed) =>
      Effect.as(
        Effect.flatMap(Scope.Scope, (delivery) => settleBy(delivery, on, placed)),
        asked.map(({ plan }, index) => {
          const port = placed.ports[index] ?? 0
          return plan.entries.map((planned) => bindingOf(planned, port))
        })
      )
    )
  })

/** In the surroundings of whoever closes the scope: `Effect.addFinalizer` would merge them with a copy of the call's. */
const settleBy = (delivery: Scope.Scope, on: Host, placed: Placed): Effect.Effect<void> =>
  Scope.addFinalizerExit(delivery, (exit) =>
    on.mappings.lock.alone(Exit.isSuccess(exit) ? confirm(on, placed) : retract(on, placed))
  )

interface Asked {
  readonly group: Group
  readonly plan: Plan
}

interface Placed extends Answering {
  /** Of each group. */
  readonly ports: ReadonlyArray<number>
}

const place = (
  on: Host,
  asked: ReadonlyArray<Asked>,
  progress: Progress
): Effect.Effect<Placed, PlaceError> =>
  Effect.flatMap(CurrentOwner, (owner) => {
    const placed = transaction((step) => placeWith(step, on, asked, owner, progress))
    return owner === "engine" && on.mappings.engine.activated
      ? Effect.andThen(beginEpoch(on), placed)
      : placed
  })

/** A group with its port reserved, and what is to be made and changed for it. */
interface Draft {
  readonly port: number
  readonly labels: Mapping["labels"]
  readonly made: ReadonlyArray<Live>
  readonly kept: ReadonlyArray<{ readonly planned: Served; readonly live: Live }>
  readonly changes: ReadonlyArray<PolicyChange>
  readonly supersedes: ReadonlyArray<Live>
}

const placeWith = Effect.fnUntraced(function* (
  step: Step,
  on: Host,
  asked: ReadonlyArray<Asked>,
  owner: string,
  progress: Progress
): Effect.fn.Return<Placed, PlaceError> {
  const gone: Array<Live> = []
  const giveWay = givingWay(step, on, gone)
  const placements: Array<ReadonlyArray<Placement>> = []
  for (const [index, { group, plan }] of asked.entries()) {
    progress.group = index
    placements.push(yield* settleConflicts(giveWay, on, group, plan))
  }
  const drafts: Array<Draft> = []
  for (const [index, { group, plan }] of asked.entries()) {
    progress.group = index
    drafts.push(yield* draft(step, giveWay, on, group, plan, index, placements, owner))
  }
  progress.group = undefined
  const made = drafts.flatMap((each) => each.made)
  const changes = drafts.flatMap((each) => each.changes)

  yield* dislodge(giveWay, on, made)
  if (made.length > 0) {
    const intents = made.map(({ mapping }) => mapping)
    yield* step(on.store.put(intents, "intent"), () => told("forgetting", on.store.remove(intents)))
  }
  yield* redirect(step, on, made, changes)
  for (const { route } of made)
    if (route !== undefined) yield* step(on.relay.open(route), () => on.relay.close(route))
  for (const { live, after } of changes)
    yield* step(reroute(on.relay, live.route, after.route), () =>
      relayAsBefore(on, live, after.route, live.route)
    )
  const applied = [...made.map(({ mapping }) => mapping), ...changes.map(({ after }) => after.mapping)]
  if (applied.length > 0) yield* on.store.put(applied, "applied")
  return settled(on, drafts, gone, owner)
})

const draft = Effect.fnUntraced(function* (
  step: Step,
  giveWay: GiveWay,
  on: Host,
  group: Group,
  plan: Plan,
  index: number,
  all: ReadonlyArray<ReadonlyArray<Placement>>,
  owner: string
): Effect.fn.Return<Draft, PlaceError> {
  const placements = all[index] ?? []
  const fresh = placements.filter(({ live }) => live === undefined).map(({ planned }) => planned)
  const kept = placements.flatMap(({ planned, live }) => (live === undefined ? [] : [{ planned, live }]))

  const reserving = fresh.filter(({ reserves }) => reserves)
  const beside = kept.flatMap(({ live }) => live.hold ?? [])
  const holds = yield* step(
    reserve(
      giveWay,
      on,
      reserving.map(({ entry }) => entry),
      group.ports,
      beside,
      all
    ),
    on.allocator.release
  )
  const port = holds[0]?.port ?? (group.ports._tag === "Exact" ? group.ports.port : 0)
  const sinceMillis = yield* Clock.currentTimeMillis

  const made = fresh.map((planned) =>
    newLive(planned, plan, port, holds[reserving.indexOf(planned)], {
      labels: group.labels,
      owner,
      epoch: on.mappings.engine.number,
      sinceMillis
    })
  )
  const changes = kept
    // In routed mode several entries may be one mapping, which the last of them stands for.
    .filter(({ live }, at) => kept.findLastIndex((other) => other.live === live) === at)
    .flatMap(({ planned, live }) => changeOf(planned, live, group, plan, owner))
  const supersedes = placements.flatMap((placement) => placement.supersedes ?? [])
  return { port, labels: group.labels, made, kept, changes, supersedes }
})

/** Makes it known; the last step, which can't fail. */
const settled = (
  { mappings }: Host,
  drafts: ReadonlyArray<Draft>,
  gone: ReadonlyArray<Live>,
  owner: string
): Placed => {
  const changed: Array<Replaced> = []
  const supersedes = drafts.flatMap((each) => each.supersedes)
  const delivery = mappings.newDelivery({ changed, gone, supersedes })
  const epoch = mappings.engine.number
  const lives: Array<Live> = []
  for (const { changes, kept, labels, made } of drafts) {
    for (const { live, after } of changes) {
      const { mapping, rules, route } = live
      Object.assign(live, after)
      changed.push({ live, before: { mapping, rules, route } })
    }
    for (const live of made) mappings.add(live)
    for (const { planned, live } of kept) {
      // What nobody has confirmed yet is from now on this caller's, whoever asked for it first.
      if (live.standing === "unconfirmed")
        live.mapping = { ...live.mapping, owner, labels, asked: planned.entry.asked, epoch }
      else if (owner === "engine" && live.mapping.epoch !== epoch) live.mapping = { ...live.mapping, epoch }
    }
    lives.push(...made, ...kept.map(({ live }) => live))
  }
  for (const live of lives) live.deliveries.add(delivery)
  return { ports: drafts.map(({ port }) => port), delivery, lives }
}

/**
 * Where nothing is left of a range, what nobody confirmed and what an Engine long gone left there gives way, the oldest
 * first and no more than is needed: nobody may ever come to unmap it. Not what this very call answers with.
 */
const reserve = (
  giveWay: GiveWay,
  on: Host,
  frontends: ReadonlyArray<Entry>,
  ports: PortRequest,
  beside: ReadonlyArray<Hold>,
  all: ReadonlyArray<ReadonlyArray<Placement>>
): Effect.Effect<ReadonlyArray<Hold>, PortError | UnmapError> =>
  Effect.catch(on.allocator.reserve(frontends, ports, beside), (error) =>
    error._tag === "PortsExhausted"
      ? reserveAbandoned(giveWay, on, frontends, ports, beside, all, error)
      : Effect.fail(error)
  )

const reserveAbandoned = Effect.fnUntraced(function* (
  giveWay: GiveWay,
  on: Host,
  frontends: ReadonlyArray<Entry>,
  ports: PortRequest,
  beside: ReadonlyArray<Hold>,
  all: ReadonlyArray<ReadonlyArray<Placement>>,
  exhausted: PortError
): Effect.fn.Return<ReadonlyArray<Hold>, PortError | UnmapError> {
  const { allocator, mappings } = on
  const now = yield* Clock.currentTimeMillis
  const answered = new Set(
    all.flatMap((placements) => placements.flatMap(({ live, supersedes }) => [live, supersedes]))
  )
  const mayGo = (live: Live) => !answered.has(live) && isAbandoned(live, mappings.engine, now)
  const abandoned = [...mappings.all()]
    .filter((live) => live.mapping.mode !== "routed" && allocator.gives(ports, live.mapping.port))
    .filter(mayGo)
    .sort((a, b) => a.mapping.sinceMillis - b.mapping.sinceMillis)
  for (const port of new Set(abandoned.map(({ mapping }) => mapping.port))) {
    const holders = new Set(
      frontends.flatMap(({ protocol, host: address }) => mappings.colliding(protocol, address, port))
    )
    const held = [...holders].filter((live) => !isConflicted(live))
    if (held.length === 0 || !held.every(mayGo)) continue
    yield* giveWay(held)
    // Another process may have it on another address: then the next one is tried.
    const again = yield* Effect.result(allocator.reserve(frontends, ports, beside))
    if (Result.isSuccess(again)) return again.success
    if (again.failure._tag !== "PortsExhausted") return yield* again.failure
    yield* comeBack(on, held)
  }
  return yield* exhausted
})

const newLive = (
  planned: Served,
  plan: Plan,
  port: number,
  hold: Hold | undefined,
  told: Pick<Mapping, "labels" | "owner" | "epoch" | "sinceMillis">
): Live => {
  const { entry, mode } = planned
  const { protocol, host, asked, backend } = entry
  return {
    mapping: { protocol, host, asked, port: mode === "routed" ? 0 : port, backend, mode, ...told },
    standing: "provisional",
    hold,
    rules: rulesOf(planned, port, plan.policy),
    route: hold === undefined ? undefined : routeOf(planned, hold, plan.policy),
    deliveries: new Set()
  }
}

/** What is conflicted holds nothing, so it gives way only now that the port is had. */
const dislodge = (
  giveWay: GiveWay,
  { mappings }: Host,
  made: ReadonlyArray<Live>
): Effect.Effect<void, UnmapError> => {
  const inTheWay = made.flatMap(({ mapping }) =>
    mapping.mode === "routed"
      ? (mappings.get(mappingKey(mapping)) ?? [])
      : mappings.colliding(mapping.protocol, mapping.host, mapping.port)
  )
  const conflicted = [...new Set(inTheWay)].filter(isConflicted)
  return conflicted.length === 0 ? Effect.void : giveWay(conflicted)
}

interface PolicyChange {
  readonly live: Live
  readonly after: Pick<Live, "mapping" | "rules" | "route">
}

/**
 * The change of policy that the same mapping asked with other labels is, or in another name of the same kind; none where
 * labels, mode and owner are as before.
 */
const changeOf = (
  planned: Served,
  live: Live,
  { labels }: Group,
  plan: Plan,
  asker: string
): ReadonlyArray<PolicyChange> => {
  const { mapping, hold } = live
  const owner = handsOver(mapping.owner, asker) ? asker : mapping.owner
  const asBefore = mapping.mode === planned.mode && owner === mapping.owner
  if (asBefore && policyText(mapping.labels) === policyText(labels)) return []
  return [
    {
      live,
      after: {
        mapping: { ...mapping, mode: planned.mode, labels, asked: planned.entry.asked, owner },
        rules: rulesOf(planned, mapping.port, plan.policy),
        route: hold === undefined ? undefined : routeOf(planned, hold, plan.policy)
      }
    }
  ]
}

/**
 * Owners that are named one by one, `KIND:NAME`, follow each other at a backend address: the one who asks has it now, and
 * what the one before gives back late is not theirs any more. Any other owner keeps what it has.
 */
const handsOver = (from: string, to: string): boolean => {
  const kind = to.slice(0, to.indexOf(":") + 1)
  return kind !== "" && from !== to && from.startsWith(kind)
}

/** One transaction for what comes and for what changes; flows that went elsewhere until now are forgotten. */
const redirect = (
  step: Step,
  on: Host,
  made: ReadonlyArray<Live>,
  changes: ReadonlyArray<PolicyChange>
): Effect.Effect<void, FirewallError | ConntrackError> => {
  const { firewall, conntrack } = on
  const add = [...made.flatMap(({ rules }) => rules), ...changes.flatMap(({ after }) => after.rules)]
  const before = changes.flatMap(({ live }) => live.rules)
  if (add.length === 0 && before.length === 0) return Effect.void
  const change = { add, remove: withoutRules(before, add) }
  const applied = Effect.catch(firewall.apply(change), (error) =>
    error.reason === "Gone" ? Effect.andThen(repair(on), firewall.apply(change)) : Effect.fail(error)
  )
  const redirected = step(applied, () =>
    Effect.andThen(
      told("undoing redirections", firewall.apply({ add: before, remove: withoutRules(add, before) })),
      forgetFlows(
        conntrack,
        narrowedFlows(changes.map(({ live, after }) => ({ before: after, after: live })))
      )
    )
  )
  const flows = [
    ...flowsOfAdded(add),
    ...flowsOfRemoved(change.remove),
    ...narrowedFlows(changes.map(({ live, after }) => ({ before: live, after })))
  ]
  return flows.length > 0 ? Effect.andThen(redirected, conntrack.flush(flows)) : redirected
}

/** The first `MapPorts` after a `Plugin.Activate` begins the Engine's epoch. */
const beginEpoch = Effect.fnUntraced(function* ({ mappings: { engine }, store }: Host) {
  yield* store.putEngine({ epoch: engine.number + 1, activated: false })
  engine.activated = false
  engine.number++
  engine.sinceMillis = yield* Clock.currentTimeMillis
})

/**
 * `mapPorts`: publishes a group. Plan, reserve, record, redirect, relay, answer; each step undoes the ones before it when
 * it fails or is interrupted, and all of it is undone when the answer can't be delivered.
 */
import { Clock, Context, Effect, Exit, type Scope } from "effect"
import { Conntrack, type ConntrackError } from "../firewall/Conntrack.ts"
import { Firewall, type FirewallError, type Rule, ruleKey } from "../firewall/Firewall.ts"
import { type Hold, PortAllocated, PortAllocator, type PortError } from "../ports/PortAllocator.ts"
import { CurrentOwner } from "../protocol/Driver.ts"
import { frontendText, type Group, type PortBinding } from "../protocol/PortBinding.ts"
import { Relay, type RelayError, type Route } from "../relay/Relay.ts"
import { Backends } from "./Backends.ts"
import { policyText } from "./Labels.ts"
import { isStale, type Live, type Mapping, Mappings, mappingKey, sameBackend } from "./Mapping.ts"
import { MappingStore, recordedState, type StoreError } from "./MappingStore.ts"
import {
  bindingOf,
  type Capabilities,
  type Plan,
  type PlanError,
  planGroup,
  routeOf,
  rulesOf,
  type Served
} from "./Plan.ts"
import { removeLives, type UnmapError } from "./UnmapPorts.ts"

export type MapError =
  | PlanError
  | PortError
  | FirewallError
  | ConntrackError
  | RelayError
  | StoreError
  | UnmapError

/** What the mapper knows of its host; see `Capabilities`. */
export class MapperConfig extends Context.Service<MapperConfig, Capabilities>()(
  "portmapper/mapper/MapperConfig"
) {}

/** Everything a mapper stands on. */
export type MapperServices =
  | MapperConfig
  | Mappings
  | PortAllocator
  | Firewall
  | Conntrack
  | Relay
  | MappingStore
  | Backends

/**
 * Publishes a group and answers one binding per entry, in order. What is mapped already is answered as before; with other
 * labels its policy is replaced. The scope is the delivery of the answer: closed with a failure, what this call created or
 * changed is undone, unless another call has answered with it meanwhile.
 */
export const mapPorts = Effect.fnUntraced(function* (
  group: Group
): Effect.fn.Return<ReadonlyArray<PortBinding>, MapError, MapperServices | Scope.Scope> {
  const capabilities = yield* MapperConfig
  const plan = yield* Effect.fromResult(planGroup(group, capabilities))
  if (plan.entries.length === 0) return []
  const mappings = yield* Mappings
  const placed = yield* Effect.acquireRelease(
    mappings.lock.withPermits(1)(place(group, plan)),
    (made, exit) => (Exit.isSuccess(exit) ? confirm(made) : mappings.lock.withPermits(1)(retract(made))),
    { interruptible: true }
  )
  return plan.entries.map((planned) => bindingOf(planned, placed.port))
})

/** What one call made or touched, until its answer is delivered. */
interface Placed {
  readonly port: number
  readonly delivery: object
  readonly lives: ReadonlyArray<Live>
  readonly changed: ReadonlyArray<Replaced>
}

/** A live mapping whose policy this call replaced, and what it was before. */
interface Replaced {
  readonly live: Live
  readonly before: Pick<Live, "mapping" | "rules" | "route">
}

/** An entry that is served, with the live mapping that it has already, if any. */
interface Placement {
  readonly planned: Served
  readonly live: Live | undefined
}

const place = Effect.fnUntraced(function* (
  group: Group,
  plan: Plan
): Effect.fn.Return<Placed, MapError, MapperServices> {
  yield* noticeEngineStart
  const placements = yield* settleConflicts(group, plan)
  // The steps undo themselves in reverse when this scope closes with a failure.
  return yield* Effect.scoped(steps(group, plan, placements))
})

const steps = Effect.fnUntraced(function* (group: Group, plan: Plan, placements: ReadonlyArray<Placement>) {
  const mappings = yield* Mappings
  const fresh = placements.filter(({ live }) => live === undefined).map(({ planned }) => planned)
  const kept = placements.flatMap(({ planned, live }) => (live === undefined ? [] : [{ planned, live }]))

  const holds = yield* reserve(
    group,
    fresh,
    kept.flatMap(({ live }) => live.hold ?? [])
  )
  const port = holds.values().next().value?.port ?? (group.ports._tag === "Exact" ? group.ports.port : 0)

  const now = yield* Clock.currentTimeMillis
  const owner = yield* CurrentOwner
  const mappingOf = ({ entry, mode }: Served): Mapping => ({
    protocol: entry.protocol,
    host: entry.host,
    asked: entry.asked,
    port: mode === "routed" ? 0 : port,
    backend: entry.backend,
    mode,
    labels: group.labels,
    owner,
    epoch: mappings.engine.number,
    sinceMillis: now
  })

  const made = fresh.map((planned): Live => {
    const hold = holds.get(planned)
    return {
      mapping: mappingOf(planned),
      standing: "provisional",
      hold,
      rules: rulesOf(planned, port, plan.policy),
      route: hold === undefined ? undefined : routeOf(planned, hold, plan.policy),
      deliveries: new Set()
    }
  })
  const changes = kept.flatMap(({ planned, live }) => changeOf(planned, live, mappingOf(planned), plan))

  yield* dislodge(made)
  yield* record(made.map(({ mapping }) => mapping))
  yield* redirect(made, changes)
  yield* relay(made, changes)
  return yield* settle(
    made,
    kept.map(({ planned, live }) => ({ live, wanted: mappingOf(planned) })),
    changes,
    port
  )
})

/** Holds a port for the entries that need one; freed again when a later step fails. */
const reserve = Effect.fnUntraced(function* (
  group: Group,
  fresh: ReadonlyArray<Served>,
  beside: ReadonlyArray<Hold>
) {
  const allocator = yield* PortAllocator
  const reserving = fresh.filter(({ reserves }) => reserves)
  const holds = yield* undoable(
    allocator.reserve(
      reserving.map(({ entry }) => entry),
      group.ports,
      beside
    ),
    (held) => allocator.release(held)
  )
  return new Map(reserving.map((planned, index) => [planned, holds[index] as Hold]))
})

/**
 * What is conflicted holds nothing, so it gives way only now that the port is had: to the same request, which serves it
 * again, or to another one. Where a later step fails it is conflicted as before.
 */
const dislodge = Effect.fnUntraced(function* (made: ReadonlyArray<Live>) {
  const mappings = yield* Mappings
  const inTheWay = made.flatMap(({ mapping }) => [
    mappings.get(mappingKey(mapping)),
    ...(mapping.mode === "routed" ? [] : mappings.colliding(mapping.protocol, mapping.host, mapping.port))
  ])
  const conflicted = new Set(
    inTheWay.filter((live) => live !== undefined).filter(({ standing }) => standing === "conflicted")
  )
  if (conflicted.size === 0) return
  yield* undoable(removeLives([...conflicted]), () =>
    reported("keeping what is conflicted", Effect.forEach(conflicted, keepConflicted, { discard: true }))
  )
})

const keepConflicted = Effect.fnUntraced(function* (live: Live) {
  const store = yield* MappingStore
  const mappings = yield* Mappings
  mappings.add(live)
  yield* store.put([live.mapping], recordedState(live))
})

/** Writes down what is about to be done, so that a restart can undo it. */
const record = Effect.fnUntraced(function* (made: ReadonlyArray<Mapping>) {
  if (made.length === 0) return
  const store = yield* MappingStore
  yield* undoable(store.put(made, "intent"), () => reported("forgetting", store.remove(made)))
})

interface PolicyChange {
  readonly live: Live
  readonly after: Pick<Live, "mapping" | "rules" | "route">
}

/** One transaction for what comes and for what changes; flows that went elsewhere until now are forgotten. */
const redirect = Effect.fnUntraced(function* (
  made: ReadonlyArray<Live>,
  changes: ReadonlyArray<PolicyChange>
) {
  const add = [...made.flatMap(({ rules }) => rules), ...changes.flatMap(({ after }) => after.rules)]
  const before = changes.flatMap(({ live }) => live.rules)
  const added = new Set(add.map(ruleKey))
  const restored = new Set(before.map(ruleKey))
  if (add.length === 0 && before.length === 0) return
  const firewall = yield* Firewall
  yield* undoable(firewall.apply({ add, remove: before.filter((rule) => !added.has(ruleKey(rule))) }), () =>
    reported(
      "undoing redirections",
      firewall.apply({ add: before, remove: add.filter((rule) => !restored.has(ruleKey(rule))) })
    )
  )
  yield* flushFlows(made.flatMap(({ rules }) => rules))
})

const relay = Effect.fnUntraced(function* (made: ReadonlyArray<Live>, changes: ReadonlyArray<PolicyChange>) {
  const userland = yield* Relay
  for (const { route } of made)
    if (route !== undefined) yield* undoable(userland.open(route), () => userland.close(route))
  for (const { live, after } of changes)
    yield* undoable(reroute(live.route, after.route), () =>
      reported("relaying as before", reroute(after.route, live.route))
    )
})

const reroute = Effect.fnUntraced(function* (from: Route | undefined, to: Route | undefined) {
  const userland = yield* Relay
  if (to !== undefined) yield* userland.open(to)
  else if (from !== undefined) yield* userland.close(from)
})

/** Makes it known: nothing after this fails but the record of it, which undoes all. */
const settle = Effect.fnUntraced(function* (
  made: ReadonlyArray<Live>,
  kept: ReadonlyArray<{ readonly live: Live; readonly wanted: Mapping }>,
  changes: ReadonlyArray<PolicyChange>,
  port: number
) {
  const store = yield* MappingStore
  const mappings = yield* Mappings
  const all = [...made.map(({ mapping }) => mapping), ...changes.map(({ after }) => after.mapping)]
  if (all.length > 0) yield* store.put(all, "applied")
  return yield* Effect.sync((): Placed => {
    const changed = changes.map(({ live, after }): Replaced => {
      const { mapping, rules, route } = live
      Object.assign(live, after)
      return { live, before: { mapping, rules, route } }
    })
    for (const live of made) mappings.add(live)
    const delivery = {}
    for (const { live, wanted } of kept) {
      // What nobody has confirmed yet is from now on this caller's, whoever asked for it first.
      const { owner, labels, asked } = live.standing === "unconfirmed" ? wanted : live.mapping
      live.mapping = { ...live.mapping, owner, labels, asked, epoch: mappings.engine.number }
    }
    const lives = [...made, ...kept.map(({ live }) => live)]
    for (const live of lives) live.deliveries.add(delivery)
    return { port: kept[0]?.live.mapping.port ?? port, delivery, lives, changed }
  })
})

/** The change of policy that the same mapping asked with other labels is; none where labels and mode are as before. */
const changeOf = (planned: Served, live: Live, wanted: Mapping, plan: Plan): ReadonlyArray<PolicyChange> => {
  const { mapping, hold } = live
  if (mapping.mode === planned.mode && policyText(mapping.labels) === policyText(wanted.labels)) return []
  return [
    {
      live,
      after: {
        mapping: { ...mapping, mode: planned.mode, labels: wanted.labels, asked: wanted.asked },
        rules: rulesOf(planned, mapping.port, plan.policy),
        route: hold === undefined ? undefined : routeOf(planned, hold, plan.policy)
      }
    }
  ]
}

/**
 * Finds what of the group is mapped already, and settles what stands in its way: a mapping that nobody confirmed, one
 * of an Engine long gone, or one whose container is gone gives way; any other refuses the group.
 */
const settleConflicts = Effect.fnUntraced(function* (group: Group, plan: Plan) {
  const mappings = yield* Mappings
  const served = plan.entries.filter((planned) => planned._tag === "Served")
  const { ports } = group
  const placements = served.map((planned): Placement => {
    const { entry, mode } = planned
    if (mode !== "routed" && ports._tag !== "Exact") return { planned, live: undefined }
    const port = ports._tag === "Exact" ? ports.port : 0
    const live = mappings.get(mappingKey({ ...entry, port, mode }))
    const same =
      live !== undefined && live.standing !== "conflicted" && sameBackend(live.mapping.backend, entry.backend)
    return { planned, live: same ? live : undefined }
  })
  if (ports._tag !== "Exact") return placements

  const own = new Set(placements.map(({ live }) => live))
  const displaced = new Set<Live>()
  for (const { planned, live } of placements) {
    if (live !== undefined || !planned.reserves) continue
    const { protocol, host } = planned.entry
    for (const holder of mappings.colliding(protocol, host, ports.port)) {
      if (own.has(holder) || holder.standing === "conflicted") continue
      if (!(yield* givesWay(holder)))
        return yield* new PortAllocated({
          frontend: frontendText(protocol, host, ports.port),
          hint: ` (${holderText(holder)})`
        })
      displaced.add(holder)
    }
  }
  if (displaced.size > 0) yield* removeLives([...displaced])
  return placements
})

const givesWay = Effect.fnUntraced(function* (holder: Live) {
  const mappings = yield* Mappings
  const now = yield* Clock.currentTimeMillis
  if (holder.standing === "unconfirmed") return true
  if (isStale(holder, mappings.engine, now)) return true
  const backends = yield* Backends
  return (yield* backends.stateOf(holder.mapping.backend)) === "gone"
})

/** Who holds the port, since when, and how to free it. */
const holderText = ({ mapping }: Live): string => {
  const { protocol, backend, owner, sinceMillis } = mapping
  const since = new Date(sinceMillis).toISOString()
  const host = mapping.host.text.includes(":") ? `[${mapping.host.text}]` : mapping.host.text
  const to = `${backend.address.text} port ${backend.port}`
  return `held by ${owner} for ${to} since ${since}; free it with: portmapper unmap -p ${host}:${mapping.port}/${protocol} --owner any`
}

/** The first `MapPorts` after a `Plugin.Activate` begins the Engine's epoch. */
const noticeEngineStart = Effect.gen(function* () {
  const { engine } = yield* Mappings
  if (!engine.activated || (yield* CurrentOwner) !== "engine") return
  const store = yield* MappingStore
  yield* store.putEngine({ epoch: engine.number + 1, activated: false })
  engine.activated = false
  engine.number++
  engine.sinceMillis = yield* Clock.currentTimeMillis
})

/** The answer was delivered: what it named is answered for good. */
const confirm = Effect.fnUntraced(function* ({ lives, delivery }: Placed) {
  const store = yield* MappingStore
  const mappings = yield* Mappings
  const current = lives.filter(
    (live) => live.deliveries.delete(delivery) && mappings.get(mappingKey(live.mapping)) === live
  )
  for (const live of current) live.standing = "answered"
  if (current.length === 0) return
  yield* reported(
    "recording the answer",
    store.put(
      current.map(({ mapping }) => mapping),
      "answered"
    )
  )
})

/** The answer never arrived: what nobody else has answered with is undone, what was there before is as it was. */
const retract = Effect.fnUntraced(function* ({ lives, delivery, changed }: Placed) {
  const mappings = yield* Mappings
  for (const live of lives) live.deliveries.delete(delivery)
  const current = (live: Live) =>
    mappings.get(mappingKey(live.mapping)) === live && live.deliveries.size === 0
  const orphaned = lives.filter((live) => live.standing === "provisional" && current(live))
  yield* Effect.catch(removeLives(orphaned), (error) =>
    Effect.logError(`undoing an undelivered answer: ${error.message}`).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          for (const live of orphaned) live.standing = "unconfirmed"
        })
      )
    )
  )
  yield* reported(
    "undoing an undelivered change of policy",
    restorePolicies(changed.filter(({ live }) => current(live)))
  )
})

const restorePolicies = Effect.fnUntraced(function* (changed: ReadonlyArray<Replaced>) {
  if (changed.length === 0) return
  const firewall = yield* Firewall
  const store = yield* MappingStore
  const add = changed.flatMap(({ before }) => before.rules)
  const kept = new Set(add.map(ruleKey))
  const remove = changed.flatMap(({ live }) => live.rules).filter((rule) => !kept.has(ruleKey(rule)))
  yield* firewall.apply({ add, remove })
  for (const { live, before } of changed) {
    yield* reroute(live.route, before.route)
    Object.assign(live, before)
  }
  yield* store.put(
    changed.map(({ before }) => before.mapping),
    "applied"
  )
})

/** UDP flows that began before a redirection go on past it unless they are forgotten. */
const flushFlows = Effect.fnUntraced(function* (rules: ReadonlyArray<Rule>) {
  const flows = rules.filter((rule) => rule._tag === "Redirect" && rule.protocol === "udp")
  if (flows.length === 0) return
  const conntrack = yield* Conntrack
  yield* conntrack.flush(flows)
})

/** A step and its undoing, which runs when the scope of all steps closes with a failure. */
const undoable = <A, E, R, R2>(
  step: Effect.Effect<A, E, R>,
  undo: (a: A) => Effect.Effect<void, never, R2>
) =>
  Effect.acquireRelease(step, (a, exit) => (Exit.isSuccess(exit) ? Effect.void : undo(a)), {
    interruptible: true
  })

/** An undoing can't fail, so what it could not do is told. */
const reported = <E extends { readonly message: string }, R>(
  what: string,
  effect: Effect.Effect<void, E, R>
) => Effect.catch(effect, (error) => Effect.logError(`${what}: ${error.message}`))

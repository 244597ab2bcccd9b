/**
 * The built-in port mapper as a driver: `mapPorts`, `unmapPorts` and `listPorts`, over the services that this host
 * provides.
 */
import { Clock, Duration, Effect, Exit, Layer, Result, Scope } from "effect"
import { ByteCounter } from "../firewall/ByteCounter.ts"
import { Conntrack } from "../firewall/Conntrack.ts"
import { Firewall } from "../firewall/Firewall.ts"
import { HostSockets } from "../ports/HostSockets.ts"
import { PortAllocator, type PortAllocatorOptions } from "../ports/PortAllocator.ts"
import { CurrentOwner, Driver, type GroupsError, ListedOwner, ListedScope } from "../protocol/Driver.ts"
import type { Group, PortBinding, Release } from "../protocol/PortBinding.ts"
import { Relay } from "../relay/Relay.ts"
import { type Applied, type ApplyError, apply, replace, type Undo, undoing } from "./apply/Apply.ts"
import { drainIn } from "./apply/Drain.ts"
import { release, type UnmapError } from "./apply/Release.ts"
import { commit, withdraw } from "./apply/Settle.ts"
import { followContainers } from "./Containers.ts"
import { connectionsOf } from "./listing/Connections.ts"
import { listOwned, listPorts } from "./listing/Listing.ts"
import {
  Backends,
  MapperConfig,
  type MapperContext,
  type MapperServices,
  mapperContext
} from "./MapperContext.ts"
import { MappingStore, type StoreError } from "./MappingStore.ts"
import { type MappingEntry, Mappings } from "./model/Mapping.ts"
import { type Change, changeOf } from "./plan/Change.ts"
import {
  answeredInTheWay,
  conflictedOf,
  doubtfulHolders,
  inSteps,
  type PlannedGroup,
  releasedBy
} from "./plan/Claims.ts"
import { bindingOf, type Capabilities, type PlanError, planGroup } from "./plan/Plan.ts"
import { withdrawLost } from "./restore/Lost.ts"
import { checkInterval, reconciler } from "./restore/Reconcile.ts"
import { type Restored, restore, retryConflicts, retryEntries } from "./restore/Restore.ts"
import { changing, claiming } from "./steps/PortScope.ts"

export type MapError = PlanError | ApplyError

/**
 * Publishes a group and returns one binding per entry, in order. An existing mapping is answered as before; with
 * other labels its policy is replaced. A call that fails, or is interrupted, changes nothing. The scope is the
 * delivery of the answer: if it closes with a failure, what this call created is released, unless another call has
 * answered with it since.
 */
export const mapPorts = (
  group: Group
): Effect.Effect<ReadonlyArray<PortBinding>, MapError, MapperServices | Scope.Scope> =>
  Effect.flatMap(mapperContext, (context) => mapPortsIn(context, group))

/** Releases bindings, each identified by frontend and backend. Succeeds for a binding that is not mapped. */
export const unmapPorts = (release: Release): Effect.Effect<void, UnmapError, MapperServices> =>
  Effect.flatMap(mapperContext, (context) => unmapPortsIn(context, release))

/** Restores the recorded mappings, then serves calls, and keeps the kernel's table in place meanwhile. */
export const PortMapper = {
  layer: Layer.effect(
    Driver,
    Effect.gen(function* () {
      const context = yield* mapperContext
      yield* logRestored(yield* restore)
      yield* Effect.forkScoped(every(checkInterval, reconciler(context)))
      yield* Effect.forkScoped(every(retryInterval, retryConflicts(context)))
      yield* Effect.forkScoped(Effect.forever(withdrawLost(context)))
      const delivered = yield* followContainers(context)
      return Driver.of({
        mapPorts: (group) => Effect.andThen(delivered, mapPortsIn(context, group)),
        mapGroups: (groups) => Effect.andThen(delivered, mapGroupsIn(context, groups)),
        unmapPorts: (release) => unmapPortsIn(context, release),
        listPorts: Effect.flatMap(Effect.all([ListedOwner, ListedScope]), ([owner, scope]) => {
          if (scope === "cluster") return context.claims.listed
          return owner === undefined ? listPorts(context) : listOwned(context, owner)
        }),
        waits: context.relay.waits,
        connectionsOf: (bindings) => connectionsOf(context, bindings),
        drain: (request) => drainIn(context, request),
        activated: noticeActivation(context)
      })
    })
  ),

  /** Everything in memory: deterministic, for tests and for experiments. The `Memory*` services control it. */
  layerMemory: (
    capabilities: Partial<Capabilities> = {},
    backends: Layer.Layer<Backends> = Backends.layerUnknown,
    ports: PortAllocatorOptions = {}
  ) =>
    PortMapper.layer.pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          Mappings.layer,
          PortAllocator.layer(ports).pipe(Layer.provideMerge(HostSockets.layerMemory)),
          Firewall.layerMemory,
          Conntrack.layerMemory,
          ByteCounter.layerMemory,
          Relay.layerMemory,
          MappingStore.layerMemory,
          backends,
          Layer.succeed(MapperConfig, { ...memoryCapabilities, ...capabilities })
        )
      )
    )
}

const memoryCapabilities: Capabilities = {
  defaultMode: "nat",
  natUnavailable: undefined,
  marksAccepted: false,
  ipv6: true,
  relayed: ["tcp", "udp"]
}

/** How often conflicted mappings are retried. */
const retryInterval = Duration.seconds(1)

const mapPortsIn = (
  context: MapperContext,
  group: Group
): Effect.Effect<ReadonlyArray<PortBinding>, MapError, Scope.Scope> =>
  Effect.mapBoth(mapGroupsIn(context, [group]), {
    onFailure: ({ error }) => error,
    onSuccess: ([bindings = []]) => bindings
  })

/**
 * The same for several groups: all of them or none, in one transaction of the record and one of the kernel, unless
 * the groups conflict with each other. An error names its group; `undefined` means all of them.
 */
const mapGroupsIn = (
  context: MapperContext,
  groups: ReadonlyArray<Group>
): Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, GroupsError<MapError>, Scope.Scope> =>
  Effect.suspend(
    (): Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, GroupsError<MapError>, Scope.Scope> => {
      const planned: Array<PlannedGroup> = []
      for (const [index, group] of groups.entries()) {
        const plan = planGroup(group, context.capabilities)
        if (Result.isFailure(plan)) return Effect.fail({ group: index, error: plan.failure })
        planned.push({ index, group, plan: plan.success })
      }
      if (planned.every(({ plan }) => plan.entries.length === 0)) return Effect.succeed(groups.map(() => []))
      return Effect.map(publish(context, planned), (ports) =>
        planned.map(({ plan }, index) => plan.entries.map((each) => bindingOf(each, ports[index] ?? 0)))
      )
    }
  )

/** Applies what the groups request; the closing of the scope settles it. Returns their ports. */
const publish = Effect.fnUntraced(function* (
  context: MapperContext,
  groups: ReadonlyArray<PlannedGroup>
): Effect.fn.Return<ReadonlyArray<number>, GroupsError<ApplyError>, Scope.Scope> {
  const owner = yield* CurrentOwner
  const delivery: Delivery = { answered: [], closed: false }
  // Registered before anything is done, so that an interruption can't skip the settlement.
  yield* Scope.addFinalizerExit(yield* Scope.Scope, (exit) => {
    delivery.closed = true
    if (delivery.answered.length === 0) return Effect.void
    const settle = Exit.isSuccess(exit) ? commit : withdraw
    return changing(context, Effect.uninterruptible(settle(context, delivery.answered)))
  })
  const applied = context.mappings.lock.withPermit(
    undoing((undo, interruption) => applyAll(context, groups, delivery, { undo, interruption }))
  )
  return yield* claiming(context, groups, owner, applied)
})

/** A pending answer. */
interface Delivery {
  answered: ReadonlyArray<MappingEntry>
  closed: boolean
}

const applyAll = Effect.fnUntraced(function* (
  context: MapperContext,
  groups: ReadonlyArray<PlannedGroup>,
  delivery: Delivery,
  { undo, interruption }: { readonly undo: Undo; readonly interruption: Effect.Effect<void> }
): Effect.fn.Return<ReadonlyArray<number>, GroupsError<ApplyError>> {
  const owner = yield* CurrentOwner
  const { engine } = context.mappings
  if (owner === "engine" && engine.activated)
    yield* Effect.mapError(beginEpoch(context), (error) => ({ group: undefined, error }))
  const done: Array<Applied> = []
  const replaced = new Map<MappingEntry, MappingEntry>()
  for (const step of inSteps(groups)) {
    const applied = yield* apply(context, yield* decide(context, step, owner), undo)
    done.push(applied)
    // What a later group asks for again stays.
    for (const entry of applied.answered) replaced.delete(entry)
    for (const [entry, by] of applied.replaced) replaced.set(entry, by)
  }
  if (replaced.size > 0)
    yield* Effect.mapError(replace(context, replaced, undo), (error) => ({ group: undefined, error }))
  yield* delivery.closed ? Effect.interrupt : interruption
  delivery.answered = done.flatMap(({ answered }) => answered)
  const nowMillis = yield* Clock.currentTimeMillis
  for (const entry of delivery.answered) entry.askedMillis = nowMillis
  return done.flatMap(({ ports }) => ports)
})

/** The change that these groups need on the host in its current state. */
const decide = Effect.fnUntraced(function* (
  context: MapperContext,
  groups: ReadonlyArray<PlannedGroup>,
  owner: string
): Effect.fn.Return<Change, GroupsError<ApplyError>> {
  const { mappings, backends } = context
  const conflicted = conflictedOf(mappings, groups, owner)
  if (conflicted.length > 0) yield* retryEntries(context, conflicted)
  const nowMillis = yield* Clock.currentTimeMillis
  const inTheWay = answeredInTheWay(mappings, groups, { owner, nowMillis })
  if (inTheWay.length > 0) yield* retryEntries(context, inTheWay)
  const gone = new Set<MappingEntry>()
  for (const holder of doubtfulHolders(mappings, groups, { owner, nowMillis }))
    if ((yield* backends.stateOf(holder.mapping)) === "gone") gone.add(holder)
  const asking = { owner, nowMillis, isGone: (entry: MappingEntry) => gone.has(entry) }
  return yield* Effect.fromResult(changeOf(mappings, groups, asking))
})

/** The first `MapPorts` after a `Plugin.Activate` begins the Engine's epoch. */
const beginEpoch = Effect.fnUntraced(function* ({
  mappings: { engine },
  store
}: MapperContext): Effect.fn.Return<void, StoreError> {
  yield* store.putEngine({ epoch: engine.number + 1, activated: false })
  engine.activated = false
  engine.number++
  engine.sinceMillis = yield* Clock.currentTimeMillis
})

const unmapPortsIn = (context: MapperContext, { bindings }: Release): Effect.Effect<void, UnmapError> =>
  changing(
    context,
    Effect.suspend(() => release(context, releasedBy(context.mappings, bindings)))
  )

const logRestored = ({ live, unconfirmed, conflicted, undone, lost }: Restored) =>
  live + unconfirmed + conflicted.length + undone === 0 && lost === undefined
    ? Effect.void
    : Effect.logInfo(
        `restored ${live} mappings, ${unconfirmed} unconfirmed, ${conflicted.length} conflicted; undid ${undone}${
          lost === undefined
            ? ""
            : `; the record could not be used (${lost.why}), and is kept as ${lost.path}`
        }`
      )

const every = <A, E, R>(interval: Duration.Duration, look: Effect.Effect<A, E, R>) =>
  Effect.forever(Effect.andThen(Effect.sleep(interval), look))

/** Recorded, since an Engine does not repeat it to a plugin that was killed before the first `MapPorts`. */
const noticeActivation = Effect.fnUntraced(function* ({ mappings: { engine }, store }: MapperContext) {
  if (engine.activated || (yield* CurrentOwner) !== "engine") return
  engine.activated = true
  yield* Effect.catch(store.putEngine({ epoch: engine.number, activated: true }), (error) =>
    Effect.logWarning(`an Engine's start was noticed, but not recorded: ${error.message}`)
  )
})

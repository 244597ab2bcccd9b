/**
 * Carries out a change: evict, reserve, redirect, relay, record, in this order; undoes it in reverse order where a
 * step fails. A release removes the record first, so that the restore finishes a release which a kill cut short.
 */
import { Effect, Exit, Result, Schema } from "effect"
import { type ConntrackError, flowsOfAdded, flowsOfRemoved, forgetFlows } from "../firewall/Conntrack.ts"
import { type FirewallError, withoutRules } from "../firewall/Firewall.ts"
import type { Hold, PortError } from "../ports/PortAllocator.ts"
import type { GroupsError } from "../protocol/Driver.ts"
import { type RelayError, type Route, reroute } from "../relay/Relay.ts"
import {
  type Change,
  type Creation,
  conflictedInTheWay,
  flowsEnded,
  type Reservation,
  type Update
} from "./Change.ts"
import { logFailure, type MapperContext } from "./MapperContext.ts"
import {
  type MappingEntry,
  mappingKey,
  mappingText,
  nextStatus,
  noResources,
  type Status,
  takeOver
} from "./Mapping.ts"
import { recordEntries, type StoreError } from "./MappingStore.ts"
import { resourcesOf } from "./Plan.ts"
import { verifyTable } from "./Reconcile.ts"
import { reactivate, replaceTable } from "./Restore.ts"

/** Some mappings could not be released; they are mapped as before. */
export class UnmapError extends Schema.TaggedError<UnmapError>()("UnmapError", {
  failures: Schema.Array(Schema.Struct({ frontend: Schema.String, detail: Schema.String }))
}) {
  override get message(): string {
    return this.failures.map(({ frontend, detail }) => `unmapping ${frontend} failed: ${detail}`).join("; ")
  }
}

export type ApplyError = PortError | FirewallError | ConntrackError | RelayError | StoreError | UnmapError

/** The steps that undo what was done so far, run last to first. They can't fail: a step logs what it can't undo. */
export type Undo = Array<() => Effect.Effect<void>>

/**
 * Runs `body`, and undoes what it did if it fails. `body` is not interruptible: an interrupted step might have done
 * all of its work without registering its undo. `interruption` fails if the fiber was interrupted meanwhile.
 */
export const undoing = <A, E, R>(
  body: (undo: Undo, interruption: Effect.Effect<void>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) => {
    const undo: Undo = []
    return Effect.onExit(body(undo, restore(Effect.void)), (exit) =>
      Exit.isSuccess(exit)
        ? Effect.void
        : Effect.forEach(undo.reverse(), (step) => Effect.suspend(step), { discard: true })
    )
  })

/** The result of a change. */
export interface Applied {
  /** The port of each reservation. */
  readonly ports: ReadonlyArray<number>
  /** The entries that the call's answer names. */
  readonly answered: ReadonlyArray<MappingEntry>
  /** The entries to release at the end of the call, each with its replacement. */
  readonly replaced: ReadonlyArray<readonly [entry: MappingEntry, by: MappingEntry]>
}

/**
 * Carries out a change, or fails with the error and the group it belongs to. The caller holds the lock and undoes.
 */
export const apply = Effect.fnUntraced(function* (
  context: MapperContext,
  { evict: inTheWay, reserve: reservations, update }: Change,
  undo: Undo
): Effect.fn.Return<Applied, GroupsError<ApplyError>> {
  const ofAll = <A>(effect: Effect.Effect<A, ApplyError>) =>
    Effect.mapError(effect, (error) => ({ group: undefined, error }))
  if (inTheWay.length > 0) yield* ofAll(evict(context, inTheWay, undo))
  const ports: Array<number> = []
  const created: Array<Update> = []
  for (const reservation of reservations) {
    const holds = yield* reserve(context, reservation, undo)
    const { ports: asked, create } = reservation
    const port = holds[0]?.port ?? (asked._tag === "Exact" ? asked.port : 0)
    ports.push(port)
    const made = createdOn(create, port, holds)
    created.push(...made)
    // One that was replaced later in the same call, and put back, has another hold by then.
    undo.push(() =>
      context.allocator.release([...holds, ...made.flatMap(({ entry }) => entry.resources.hold ?? [])])
    )
  }
  yield* ofAll(serve(context, created, update, undo))
  const all = [...created, ...update]
  return {
    ports,
    answered: all.map(({ entry }) => entry),
    replaced: all.flatMap(({ entry, replaces }) => replaces.map((each) => [each, entry] as const))
  }
})

/** New entries, which hold nothing yet, each with the state it gets. */
const createdOn = (
  create: ReadonlyArray<Creation>,
  port: number,
  holds: ReadonlyArray<Hold>
): ReadonlyArray<Update> => {
  let next = 0
  return create.map(({ planned, policy, mapping: portless, status, replaces }) => {
    const mapping = { ...portless, port: portless.mode === "routed" ? 0 : port }
    const hold = planned.reserves ? holds[next++] : undefined
    const resources = resourcesOf(planned, policy, port, hold)
    return {
      entry: { mapping, status, resources: noResources },
      mapping,
      status,
      resources,
      replaces,
      record: true
    }
  })
}

/** Where a range has no port left, evicts entries that may be evicted, no more than needed. */
const reserve = Effect.fnUntraced(function* (
  context: MapperContext,
  { index, ports, beside, create, evictable }: Reservation,
  undo: Undo
): Effect.fn.Return<ReadonlyArray<Hold>, GroupsError<ApplyError>> {
  const { allocator } = context
  const frontends = create.flatMap(({ planned: { reserves, entry } }) => (reserves ? [entry] : []))
  if (frontends.length === 0) return []
  const attempt = Effect.result(allocator.reserve(frontends, ports, beside))
  let reserved = yield* attempt
  if (Result.isFailure(reserved) && reserved.failure._tag === "PortsExhausted")
    for (const holders of evictable((port) => allocator.gives(ports, port))) {
      const evicted: Undo = []
      yield* Effect.mapError(evict(context, holders, evicted), (error) => ({ group: index, error }))
      reserved = yield* attempt
      if (Result.isSuccess(reserved)) {
        undo.push(...evicted)
        break
      }
      // Another process may have the port on another address: put the evicted entries back and try the next port.
      for (const step of evicted) yield* step()
      if (reserved.failure._tag !== "PortsExhausted") break
    }
  if (Result.isFailure(reserved)) return yield* Effect.fail({ group: index, error: reserved.failure })
  return reserved.success
})

/** Everything after the ports: redirect, relay, record, add the new entries to the table. */
const serve = Effect.fnUntraced(function* (
  context: MapperContext,
  created: ReadonlyArray<Update>,
  update: ReadonlyArray<Update>,
  undo: Undo
): Effect.fn.Return<void, ApplyError> {
  const { mappings, relay, store } = context
  const all = [...created, ...update]
  const conflicted = conflictedInTheWay(mappings, created)
  if (conflicted.length > 0) yield* evict(context, conflicted, undo)
  // Another process may have changed the table a moment ago: what is answered again has to be in it.
  if (update.some(({ resources: { rules } }) => rules.length > 0)) yield* verifyTable(context)
  const changed = all.filter(({ entry, resources }) => entry.resources !== resources)
  yield* redirect(context, changed, undo)
  for (const { entry, resources } of changed) {
    const { route: before } = entry.resources
    const { route } = resources
    if (before === undefined && route === undefined) continue
    yield* reroute(relay, before, route)
    undo.push(() => relayAsBefore(context, entry, route, before))
  }
  const recorded = update.filter((each) => each.record)
  undo.push(() =>
    Effect.andThen(
      logFailure("forgetting what is undone", store.remove(created.map(({ mapping }) => mapping))),
      recordAgain(
        context,
        recorded.map(({ entry }) => entry)
      )
    )
  )
  yield* recordEntries(store, [...created, ...recorded])
  const before = update.map(({ entry: { mapping, status, resources } }) => ({ mapping, status, resources }))
  undo.push(() => {
    for (const { entry } of created) mappings.delete(entry)
    for (const [at, { entry }] of update.entries()) Object.assign(entry, before[at])
    return Effect.void
  })
  for (const { entry, mapping, status, resources } of all)
    Object.assign(entry, { mapping, status, resources })
  for (const { entry } of created) mappings.add(entry)
})

/**
 * The last step of a call: releases replaced entries. Pending answers that name them name their replacement from now on,
 * which is as answered as they were.
 */
export const replace = Effect.fnUntraced(function* (
  context: MapperContext,
  replaced: ReadonlyMap<MappingEntry, MappingEntry>,
  undo: Undo
): Effect.fn.Return<void, StoreError | UnmapError> {
  for (const [entry, by] of replaced) {
    const { status } = by
    undo.push(() => {
      by.status = status
      entry.replacedBy = undefined
      return Effect.void
    })
    by.status = takeOver(status, entry.status)
    entry.replacedBy = by
  }
  yield* recordEntries(context.store, [...new Set(replaced.values())])
  yield* evict(context, [...replaced.keys()], undo)
})

/** The entry that stands for this one in a pending answer. */
const current = (entry: MappingEntry): MappingEntry =>
  entry.replacedBy === undefined ? entry : current(entry.replacedBy)

/** Adds and replaces all rules in one transaction, then forgets the flows that they redirect elsewhere. */
const redirect = (
  context: MapperContext,
  changed: ReadonlyArray<Update>,
  undo: Undo
): Effect.Effect<void, FirewallError | ConntrackError> => {
  const { firewall, conntrack } = context
  const add = changed.flatMap(({ resources }) => resources.rules)
  const before = changed.flatMap(({ entry }) => entry.resources.rules)
  if (add.length === 0 && before.length === 0) return Effect.void
  const change = { add, remove: withoutRules(before, add) }
  const back = { add: before, remove: withoutRules(add, before) }
  const applied = Effect.catch(firewall.apply(change), (error) =>
    error.reason === "Gone"
      ? Effect.andThen(replaceTable(context), firewall.apply(change))
      : Effect.fail(error)
  )
  const swaps = changed.map(({ entry, resources }) => [entry.resources, resources] as const)
  return Effect.flatMap(applied, () => {
    undo.push(() =>
      Effect.andThen(
        logFailure("undoing redirections", firewall.apply(back)),
        forgetFlows(conntrack, flowsEnded(swaps.map(([from, to]) => [to, from])))
      )
    )
    const flows = [...flowsOfAdded(add), ...flowsOfRemoved(change.remove), ...flowsEnded(swaps)]
    return flows.length > 0 ? conntrack.flush(flows) : Effect.void
  })
}

/** Undoes a change of route. If the relay refuses, the route stays as it is now, and is retried. */
const relayAsBefore = (
  { relay }: MapperContext,
  entry: MappingEntry,
  now: Route | undefined,
  before: Route | undefined
): Effect.Effect<void> =>
  Effect.catch(reroute(relay, now, before), (error) => {
    entry.resources = { ...entry.resources, route: now, relayPending: true }
    return Effect.logError(`${mappingText(entry.mapping)} can't be relayed as before: ${error.message}`)
  })

/** Releases entries that are in the way. Undoing the change puts them back. */
const evict = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  undo: Undo
): Effect.Effect<void, UnmapError> => {
  const before = entries.map((entry) => ({ entry, status: entry.status }))
  undo.push(() => putBack(context, before))
  return release(context, entries)
}

/**
 * Puts released entries back as they were; one that can't be reactivated yet is in conflict. Skips entries that the
 * failed eviction had not released.
 */
const putBack = Effect.fnUntraced(function* (
  context: MapperContext,
  before: ReadonlyArray<{ readonly entry: MappingEntry; readonly status: Status }>
) {
  const released = before.filter(({ entry }) => entry.status._tag === "Gone")
  for (const { entry, status } of released) {
    entry.status = nextStatus(status, "conflict")
    context.mappings.add(entry)
  }
  yield* recordAgain(
    context,
    released.map(({ entry }) => entry)
  )
  const served = released.filter(({ status }) => status._tag !== "Conflicted")
  const refused = new Map(
    yield* reactivate(
      context,
      served.map(({ entry }) => entry)
    )
  )
  for (const { entry, status } of served) {
    const why = refused.get(entry)
    if (why === undefined) entry.status = status
    else
      yield* Effect.logWarning(
        `${mappingText(entry.mapping)} can't be served again yet, and is kept as conflicted: ${why}`
      )
  }
})

/**
 * Releases entries; the caller holds the lock. Tries one transaction first, then one per entry, so that an entry
 * that can't be released doesn't keep the others.
 */
export const release = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): Effect.Effect<void, UnmapError> => {
  if (entries.length === 0) return Effect.void
  return Effect.catch(Effect.uninterruptible(releaseTogether(context, entries)), (error) => {
    const [only] = entries
    return entries.length === 1 && only !== undefined
      ? Effect.fail(unmapError([[only, error]]))
      : releaseEach(context, entries)
  })
}

const releaseEach = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): Effect.fn.Return<void, UnmapError> {
  const failures: Array<readonly [MappingEntry, FirewallError | StoreError]> = []
  for (const entry of entries) {
    const alone = yield* Effect.result(Effect.uninterruptible(releaseTogether(context, [entry])))
    if (Result.isFailure(alone)) failures.push([entry, alone.failure])
  }
  if (failures.length > 0) return yield* unmapError(failures)
})

const unmapError = (failures: ReadonlyArray<readonly [MappingEntry, FirewallError | StoreError]>) =>
  new UnmapError({
    failures: failures.map(([{ mapping }, error]) => ({
      frontend: mappingText(mapping),
      detail: error.message
    }))
  })

/** Removes the entries from both the record and the kernel, or from neither; the steps after that can't fail. */
const releaseTogether = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
) {
  const { firewall, store, relay, mappings, allocator, byteCounter } = context
  // A removal that failed may still have been written.
  yield* Effect.tapError(store.remove(entries.map(({ mapping }) => mapping)), () =>
    recordAgain(context, entries)
  )
  const rules = entries.flatMap(({ resources }) => resources.rules)
  if (rules.length > 0) {
    yield* Effect.tapCause(firewall.apply({ add: [], remove: rules }), () => recordAgain(context, entries))
    yield* forgetFlows(context.conntrack, flowsOfRemoved(rules))
    yield* byteCounter.forget(rules.filter((rule) => rule._tag === "Redirect"))
  }
  const holds: Array<Hold> = []
  for (const entry of entries) {
    const { route, hold } = entry.resources
    if (route !== undefined) yield* relay.close(route)
    mappings.delete(entry)
    entry.status = nextStatus(entry.status, "removed")
    entry.resources = noResources
    if (hold !== undefined) holds.push(hold)
  }
  yield* allocator.release(holds)
})

/**
 * Records again the entries that are kept: a call may answer with them in a moment, and a kill after that must find
 * them.
 */
const recordAgain = ({ store }: MapperContext, entries: ReadonlyArray<MappingEntry>): Effect.Effect<void> =>
  logFailure("recording again what is kept", again(recordEntries(store, entries), 3))

/** Retries at once, at most `times` times. */
const again = <A, E>(attempt: Effect.Effect<A, E>, times: number): Effect.Effect<A, E> =>
  times === 0 ? attempt : Effect.catch(attempt, () => again(attempt, times - 1))

/** The answer was delivered: marks the entries that it names, and that still exist, as answered. */
export const commit = ({ mappings, store }: MapperContext, answered: ReadonlyArray<MappingEntry>) =>
  Effect.suspend(() => {
    const unrecorded: Array<MappingEntry> = []
    for (const entry of answered.map(current)) {
      const { status } = entry
      if (status._tag === "Gone") continue
      entry.status = nextStatus(status, "delivered")
      if (status._tag !== "Answered" || mappings.dirty.record) unrecorded.push(entry)
    }
    return logFailure("recording the answer", recordEntries(store, unrecorded))
  })

/**
 * The answer was lost: releases the entries that only this call has named. The policy requested last stays, and
 * evicted entries stay evicted. An entry that can't be released now may be evicted later.
 */
export const withdraw = (context: MapperContext, answered: ReadonlyArray<MappingEntry>) =>
  Effect.suspend(() => {
    const orphans = new Set<MappingEntry>()
    for (const entry of answered.map(current)) {
      const there = entry.status._tag !== "Gone"
      entry.status = nextStatus(entry.status, "lost")
      if (there && entry.status._tag === "Gone") orphans.add(entry)
    }
    return Effect.catch(release(context, [...orphans]), (error) => {
      for (const entry of orphans)
        if (context.mappings.get(mappingKey(entry.mapping)) === entry)
          entry.status = nextStatus(entry.status, "stuck")
      return Effect.logError(`undoing an undelivered answer: ${error.message}`)
    })
  })

/**
 * Carries out a change: evict, reserve, redirect, relay, record, in this order, and undoes it in the reverse one where a
 * step fails. A release takes the record away first, so that one which a kill cuts short is finished by the restore.
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

/** How to undo what was done so far; the last is undone first. Undoing can't fail: what it can't do is logged. */
export type Undo = Array<() => Effect.Effect<void>>

/**
 * Undoes what `body` did where it fails. It is not interrupted: a step that were could have done all it does, and its
 * undoing would be forgotten. `interruption` fails where the fiber was interrupted meanwhile.
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

/** What was done for a call. */
export interface Applied {
  /** The port of each reservation. */
  readonly ports: ReadonlyArray<number>
  /** What the call answers with. */
  readonly answered: ReadonlyArray<MappingEntry>
  /** What takes the place of what, once all else is done. */
  readonly replaced: ReadonlyArray<readonly [entry: MappingEntry, by: MappingEntry]>
}

/** Carries out a change, or fails with what refused it, and of which group; the caller has the lock and undoes. */
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
    created.push(...createdOn(create, port, holds))
  }
  yield* ofAll(serve(context, created, update, undo))
  const all = [...created, ...update]
  return {
    ports,
    answered: all.map(({ entry }) => entry),
    replaced: all.flatMap(({ entry, replaces }) => replaces.map((each) => [each, entry] as const))
  }
})

/** New entries, which hold nothing yet, and what they are to be. */
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

/** Where nothing is left of a range, entries that may be are evicted, no more than are needed. */
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
      // Another process may have the port on another address: then the next one is tried.
      for (const step of evicted) yield* step()
      if (reserved.failure._tag !== "PortsExhausted") break
    }
  if (Result.isFailure(reserved)) return yield* Effect.fail({ group: index, error: reserved.failure })
  const holds = reserved.success
  undo.push(() => allocator.release(holds))
  return holds
})

/** Everything after the ports: redirect, relay, record, make it known. */
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
 * The last step of a call, after which nothing fails: what is replaced is released. Whoever was answered with it, or is about
 * to be, is so with what takes its place.
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

/** What an answer that named this entry names now. */
const current = (entry: MappingEntry): MappingEntry =>
  entry.replacedBy === undefined ? entry : current(entry.replacedBy)

/** One transaction for what comes and what changes; flows that went elsewhere until now are forgotten. */
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

/** After a change of route that is undone; where the relay refuses, it is relayed as it is now, and retried. */
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

/** Releases entries that are in the way, to be put back where the change is undone. */
const evict = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  undo: Undo
): Effect.Effect<void, UnmapError> => {
  const before = entries.map((entry) => ({ entry, status: entry.status }))
  undo.push(() => putBack(context, before))
  return release(context, entries)
}

/** As they were; what can't be served again yet is in conflict. Of several, some may not have been released. */
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

/** Releases entries; the caller has the lock. All in one transaction, or else each in its own, so that one can't keep the others. */
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

/** The record and the kernel let go, or neither does; what follows can't fail. */
const releaseTogether = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
) {
  const { firewall, store, relay, mappings, allocator, byteCounter } = context
  // A removal that failed may have been made all the same.
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

/** Records what is kept after all: it may be answered as mapped in a moment, and a kill soon after must find it so. */
const recordAgain = ({ store }: MapperContext, entries: ReadonlyArray<MappingEntry>): Effect.Effect<void> =>
  logFailure("recording again what is kept", again(recordEntries(store, entries), 3))

/** At once, and so often at most. */
const again = <A, E>(attempt: Effect.Effect<A, E>, times: number): Effect.Effect<A, E> =>
  times === 0 ? attempt : Effect.catch(attempt, () => again(attempt, times - 1))

/** The answer was delivered: what it names, and is still there, is answered. */
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
 * The answer never arrived: what only this call has named is released. A policy stays as it was asked for last, and what
 * was evicted stays so. What can't be released now may be evicted.
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

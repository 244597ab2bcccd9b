/**
 * Carries out a change: evict, reserve, redirect, relay, record, in this order; undoes it in reverse order where a
 * step fails. A release removes the record first, so that the restore finishes a release which a kill cut short.
 */
import { Effect, Exit, Result, Schema } from "effect"
import { type ConntrackError, flowsOfAdded, flowsOfRemoved, forgetFlows } from "../firewall/Conntrack.ts"
import { type FirewallError, type Change as RuleChange, withoutRules } from "../firewall/Firewall.ts"
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
import { eachRoute, logFailure, type MapperContext, recordAgain } from "./MapperContext.ts"
import { type MappingEntry, mappingText, nextStatus, noResources, type Status, takeOver } from "./Mapping.ts"
import { recordEntries, recordedState, type StoreError } from "./MappingStore.ts"
import { resourcesOf } from "./Plan.ts"
import { verifyTable } from "./Reconcile.ts"
import { reservePort } from "./Reserve.ts"
import { reshare, rulesOf, rulesOfShares } from "./Reshare.ts"
import { reactivate, relayAgain, replaceTable } from "./Restore.ts"
import { memberText, respread, type ServiceRefused, servicesOf, without } from "./Services.ts"
import { type Succession, successionsOf, takeFrontend } from "./Standby.ts"

/** Some mappings could not be released; they are mapped as before. */
export class UnmapError extends Schema.TaggedError<UnmapError>()("UnmapError", {
  failures: Schema.Array(Schema.Struct({ frontend: Schema.String, detail: Schema.String }))
}) {
  override get message(): string {
    return this.failures.map(({ frontend, detail }) => `unmapping ${frontend} failed: ${detail}`).join("; ")
  }
}

export type ApplyError =
  | PortError
  | ServiceRefused
  | FirewallError
  | ConntrackError
  | RelayError
  | StoreError
  | UnmapError

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
  { evict: inTheWay, reserve: reservations, update, reshare: reshared }: Change,
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
  yield* ofAll(serve(context, created, [...update, ...reshared], undo))
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
    const resources = resourcesOf(planned, policy, mapping, hold)
    return {
      entry: { mapping, status, resources: noResources, askedMillis: mapping.sinceMillis },
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
  const attempt = Effect.result(reservePort(context, create, ports, beside))
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
  const changed = all.filter(({ entry, resources }) => entry.resources !== resources)
  const conflicted = conflictedInTheWay(mappings, changed)
  if (conflicted.length > 0) yield* evict(context, conflicted, undo)
  // Another process may have changed the table a moment ago: what is answered again has to be in it.
  if (update.some(({ resources: { rules } }) => rules.length > 0)) yield* verifyTable(context)
  yield* redirect(context, changed, undo)
  const rerouted = changed.filter(
    ({ entry, resources }) => (entry.resources.route ?? resources.route) !== undefined
  )
  yield* eachRoute(rerouted, ({ entry, resources: { route } }) => {
    const { route: before } = entry.resources
    return Effect.map(reroute(relay, before, route), () => {
      undo.push(() => relayAsBefore(context, entry, route, before))
    })
  })
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

/** Adds and replaces all rules in one transaction, then forgets the flows that they redirect elsewhere. */
const redirect = (
  context: MapperContext,
  changed: ReadonlyArray<Update>,
  undo: Undo
): Effect.Effect<void, FirewallError | ConntrackError> => {
  const { conntrack, firewall } = context
  const add = changed.flatMap(({ resources }) => resources.rules)
  const before = changed.flatMap(({ entry }) => entry.resources.rules)
  if (add.length === 0 && before.length === 0) return Effect.void
  const change = { add, remove: withoutRules(before, add) }
  const beside = rulesOf(
    servicesOf(
      context.mappings,
      changed.map(({ entry }) => entry)
    )
  )
  const back = { add: before, remove: withoutRules(add, [...before, ...beside]) }
  const swaps = changed.map(({ entry, resources }) => [entry.resources, resources] as const)
  return Effect.flatMap(applyRules(context, change), () => {
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

/** Where the table is missing, puts it back first. */
const applyRules = (context: MapperContext, change: RuleChange): Effect.Effect<void, FirewallError> =>
  Effect.catch(context.firewall.apply(change), (error) =>
    error.reason === "Gone"
      ? Effect.andThen(replaceTable(context), context.firewall.apply(change))
      : Effect.fail(error)
  )

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

/** Releases entries that are in the way, with their standbys. Undoing the change puts them back. */
const evict = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  undo: Undo
): Effect.Effect<void, UnmapError> => {
  const before = entries.map((entry) => ({ entry, status: entry.status }))
  undo.push(() => putBack(context, before))
  return release(context, entries, [])
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
 * Releases entries, and lets their standbys take over; the caller holds the lock. Tries one transaction first, then
 * one per entry, so that an entry that can't be released doesn't keep the others.
 */
export const release = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  successions = successionsOf(context, entries)
): Effect.Effect<void, UnmapError> => {
  if (entries.length === 0) return Effect.void
  return Effect.catch(Effect.uninterruptible(releaseTogether(context, entries, successions)), (error) => {
    const [only] = entries
    return entries.length === 1 && only !== undefined
      ? Effect.fail(unmapError([[only, error]]))
      : releaseEach(context, entries, successions)
  })
}

const releaseEach = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  successions: ReadonlyArray<Succession>
): Effect.fn.Return<void, UnmapError> {
  const failures: Array<readonly [MappingEntry, FirewallError | StoreError]> = []
  for (const entry of entries) {
    const own = successions.filter(({ from }) => from === entry)
    const alone = yield* Effect.result(Effect.uninterruptible(releaseTogether(context, [entry], own)))
    if (Result.isFailure(alone)) failures.push([entry, alone.failure])
  }
  if (failures.length > 0) return yield* unmapError(failures)
})

const unmapError = (failures: ReadonlyArray<readonly [MappingEntry, FirewallError | StoreError]>) =>
  new UnmapError({
    failures: failures.map(([{ mapping }, error]) => ({
      frontend: memberText(mapping),
      detail: error.message
    }))
  })

/**
 * Removes the entries from both the record and the kernel, or from neither; the steps after that can't fail. What
 * takes over is recorded and redirected in the same transactions, and the sockets that it needs stay open.
 */
const releaseTogether = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  successions: ReadonlyArray<Succession>
) {
  const { store, relay, mappings, allocator, byteCounter } = context
  const staying = servicesOf(without(mappings, new Set(entries)), entries)
  const others = respread(staying)
  const before = [...entries, ...successions.map(({ entry }) => entry)]
  const records = successions.map(({ entry, mapping }) => ({ mapping, state: recordedState(entry.status) }))
  const removed = before.map(({ mapping }) => mapping)
  // A removal that failed may still have been written.
  yield* Effect.tapError(store.remove(removed, records), () => recordAgain(context, before))
  const rules = withoutRules(
    entries.flatMap(({ resources }) => resources.rules),
    rulesOf(staying)
  )
  const add = [...successions.flatMap(({ resources }) => resources.rules), ...rulesOfShares(others)]
  if (rules.length + add.length > 0) {
    const change = { add, remove: withoutRules(rules, add) }
    yield* Effect.tapCause(applyRules(context, change), () => recordAgain(context, before))
    yield* forgetFlows(context.conntrack, [...flowsOfAdded(add), ...flowsOfRemoved(change.remove)])
    yield* byteCounter.forget(rules.filter((rule) => rule._tag === "Redirect"))
  }
  yield* eachRoute(
    entries.flatMap(({ resources: { route } }) => route ?? []),
    (route) => relay.close(route)
  )
  const holds = new Set<Hold>()
  for (const entry of entries) {
    const { hold } = entry.resources
    mappings.delete(entry)
    entry.status = nextStatus(entry.status, "removed")
    entry.resources = noResources
    if (hold !== undefined) holds.add(hold)
  }
  for (const { entry, mapping, planned, resources } of successions) {
    takeFrontend(mappings, entry, mapping)
    entry.resources = resources
    if (resources.hold !== undefined) holds.delete(resources.hold)
    if (planned === undefined) entry.status = nextStatus(entry.status, "conflict")
    else
      for (const [, why] of yield* relayAgain(context, { entry, planned }))
        yield* Effect.logWarning(
          `${mappingText(mapping)} can't be taken over yet, and is kept as conflicted: ${why}`
        )
  }
  yield* allocator.release([...holds])
  yield* reshare(context, others)
})

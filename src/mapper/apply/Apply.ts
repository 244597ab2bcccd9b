/**
 * Carries out a change: evict, reserve, redirect, relay, record, in this order; undoes it in reverse order where a
 * step fails.
 */
import { Effect, Exit, Result } from "effect"
import { type ConntrackError, flowsOfAdded, flowsOfRemoved, forgetFlows } from "../../firewall/Conntrack.ts"
import { type FirewallError, withoutRules } from "../../firewall/Firewall.ts"
import type { Hold, PortError } from "../../ports/PortAllocator.ts"
import type { GroupsError } from "../../protocol/Driver.ts"
import { frontendText } from "../../protocol/PortBinding.ts"
import { type RelayError, type Route, reroute } from "../../relay/Relay.ts"
import { eachRoute, logFailure, type MapperContext, recordAgain } from "../MapperContext.ts"
import { recordEntries, type StoreError } from "../MappingStore.ts"
import { type MappingEntry, nextStatus, noResources, type Status, takeOver } from "../model/Mapping.ts"
import {
  type Change,
  type Creation,
  conflictedInTheWay,
  flowsEnded,
  type Reservation,
  type Update
} from "../plan/Change.ts"
import { resourcesOf } from "../plan/Plan.ts"
import { type ServiceRefused, servicesOf } from "../plan/Services.ts"
import { verifyTable } from "../restore/Reconcile.ts"
import { reactivate } from "../restore/Restore.ts"
import { reservePort } from "../steps/Reserve.ts"
import { rulesOf } from "../steps/Reshare.ts"
import { applyRules, release, type UnmapError } from "./Release.ts"

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

/** Undoes a change of route. If the relay refuses, the route stays as it is now, and is retried. */
const relayAsBefore = (
  { relay }: MapperContext,
  entry: MappingEntry,
  now: Route | undefined,
  before: Route | undefined
): Effect.Effect<void> =>
  Effect.catch(reroute(relay, now, before), (error) => {
    entry.resources = { ...entry.resources, route: now, relayPending: true }
    return Effect.logError(`${frontendText(entry.mapping)} can't be relayed as before: ${error.message}`)
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
        `${frontendText(entry.mapping)} can't be served again yet, and is kept as conflicted: ${why}`
      )
  }
})

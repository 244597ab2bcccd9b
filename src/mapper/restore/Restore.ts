/**
 * Serves existing mappings again: at a start (`restore`), when nothing is in the way any more (`retryConflicts`),
 * and where an eviction is undone (`reactivate`). A mapping that can't be served is in conflict, and the reason is
 * returned.
 */
import { Clock, Effect, Result } from "effect"
import { flowsOfAdded, flowsOfRemoved, forgetFlows } from "../../firewall/Conntrack.ts"
import { type FirewallError, type Rule, withoutRules } from "../../firewall/Firewall.ts"
import { HostSockets } from "../../ports/HostSockets.ts"
import type { Hold } from "../../ports/PortAllocator.ts"
import { isUnspecified } from "../../protocol/Address.ts"
import { isSession } from "../../protocol/Driver.ts"
import { frontendText, sameBackend } from "../../protocol/PortBinding.ts"
import { reroute } from "../../relay/Relay.ts"
import {
  eachRoute,
  LiveSessions,
  logFailure,
  type MapperContext,
  type MapperServices,
  mapperContext
} from "../MapperContext.ts"
import { type LostRecord, recordedState, type Stored, type StoreError } from "../MappingStore.ts"
import {
  frontendKey,
  isConflicted,
  type Mapping,
  type MappingEntry,
  mappingKey,
  memberKey,
  nextStatus,
  noResources
} from "../model/Mapping.ts"
import { planAgain, resourcesOf, type Served } from "../plan/Plan.ts"
import { isMember, respread, servicesOf } from "../plan/Services.ts"
import { areOfOneContainer, orphansOf, takeFrontend, withFrontend } from "../plan/Standby.ts"
import { changing, claimantOf, portsInCluster, wantedAgain } from "../steps/PortScope.ts"
import { recordShares, reshare, rulesOfShares, takeShare } from "../steps/Reshare.ts"
import { readBack } from "./ReadBack.ts"

export interface Restored {
  readonly live: number
  readonly unconfirmed: number
  /** Each as `0.0.0.0:8080/tcp: why`. */
  readonly conflicted: ReadonlyArray<string>
  /**
   * Mappings of sessions that are over, and redirections of calls that a kill cut short before they were recorded, so
   * they were never answered.
   */
  readonly undone: number
  /** The record that could not be used, if any; mappings read back from the kernel are among the unconfirmed. */
  readonly lost: LostRecord | undefined
}

/** An entry that can't be served, and why. */
type Refused = readonly [entry: MappingEntry, why: string]

const refusal = (entry: MappingEntry, why: string): Refused => {
  entry.reason = why
  return [entry, why]
}

/**
 * Runs once, before the first call is served. The socket of an adopted port stays open throughout; adopted sockets
 * that belong to no mapping are closed. Fails only where the store can't be read or the kernel's table can't be
 * set, and then holds nothing that was not adopted.
 */
export const restore: Effect.Effect<Restored, StoreError | FirewallError, MapperServices | HostSockets> =
  Effect.gen(function* () {
    const context = yield* mapperContext
    const { mappings, store } = context
    const stored = yield* store.load
    mappings.engine.number = stored.engine.epoch
    mappings.engine.activated = stored.engine.activated
    mappings.engine.sinceMillis = yield* Clock.currentTimeMillis

    const { lost } = stored
    const found =
      lost !== undefined && stored.mappings.length === 0 ? yield* readBack(context, lost) : stored.mappings
    const over = yield* endedSessions(context, found)
    const entries = found.filter((one) => !over.has(mappingKey(one.mapping))).map(entryOf)
    for (const entry of entries) mappings.add(entry)
    yield* context.claims.begin(portsInCluster(context, entries))
    yield* adoptOrphans(context)
    const { removed, refused: first } = yield* restoreEntries(context, entries)
    // What was wrong may have passed: a lack of memory, or a refusal of the relay.
    const refused = yield* reactivate(
      context,
      first.map(([entry]) => entry)
    )
    yield* letGoOfTheRest(context)
    const conflicted = refused.map(([{ mapping }, why]) => `${frontendText(mapping)}: ${why}`)
    for (const text of conflicted)
      yield* Effect.logWarning(`could not be restored, and is kept as conflicted: ${text}`)
    return {
      live: entries.filter(({ status }) => status._tag === "Answered").length,
      unconfirmed: entries.filter(({ status }) => status._tag === "Unconfirmed").length,
      conflicted,
      undone:
        over.size +
        removed.filter(
          (rule) =>
            rule._tag === "Redirect" &&
            mappings.get(keyOfRule(rule)) === undefined &&
            !over.has(keyOfRule(rule))
        ).length,
      lost
    }
  })

/** Removes from the record what sessions mapped that did not survive the end of the last process; returns the keys. */
const endedSessions = Effect.fnUntraced(function* (
  { store }: MapperContext,
  found: ReadonlyArray<Stored>
): Effect.fn.Return<ReadonlySet<string>> {
  const live = yield* LiveSessions
  const over = found.flatMap(({ mapping }) =>
    isSession(mapping.owner) && !live.has(mapping.owner) ? [mapping] : []
  )
  if (over.length > 0) yield* logFailure("forgetting what sessions mapped", store.remove(over))
  return new Set(over.map(mappingKey))
})

const keyOfRule = (rule: Rule): string => {
  const frontend = frontendKey(rule.protocol, rule.host, rule.port)
  return rule._tag === "Redirect" && rule.share !== undefined ? memberKey(frontend, rule.backend) : frontend
}

/** In conflict until it is reactivated. */
const entryOf = ({ mapping, state }: Stored): MappingEntry => ({
  mapping,
  status: { _tag: "Conflicted", was: state === "answered" ? "Answered" : "Unconfirmed" },
  resources: noResources,
  askedMillis: mapping.sinceMillis
})

/** Reserves the ports first, then replaces the kernel's whole table at once, then opens the relay's routes. */
const restoreEntries = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
) {
  const { reserved, refused } = yield* reserveAgain(context, entries)
  const restored = reserved.map(({ entry }) => entry)
  const reshared = respread(servicesOf(context.mappings, restored))
  for (const each of reshared) takeShare(each)
  const removed = yield* Effect.onError(replaceTable(context), () => setAside(context, restored))
  yield* recordShares(context, reshared)
  const unrelayed = yield* eachRoute(reserved, (each) => relayAgain(context, each))
  return { removed, refused: [...refused, ...unrelayed.flat()] }
})

/**
 * Reactivates entries in conflict where possible. Returns those that stay in conflict, and why. The caller holds
 * the lock.
 */
export const reactivate = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): Effect.Effect<ReadonlyArray<Refused>> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const { reserved, refused } = yield* reserveAgain(context, entries)
      const own = new Set(reserved.map(({ entry }) => entry))
      const shares = respread(servicesOf(context.mappings, [...own]))
      const ofOwn = shares.filter(({ entry }) => own.has(entry))
      const ofOthers = shares.filter(({ entry }) => !own.has(entry))
      for (const each of ofOwn) takeShare(each)
      const rules = [...reserved.flatMap(({ entry }) => entry.resources.rules), ...rulesOfShares(ofOthers)]
      if (rules.length > 0) {
        const applied = yield* Effect.result(context.firewall.apply({ add: rules, remove: [] }))
        if (Result.isFailure(applied)) {
          const failed = reserved.map(({ entry }) => entry)
          yield* setAside(context, failed)
          return [...refused, ...failed.map((entry) => refusal(entry, applied.failure.message))]
        }
        yield* forgetFlows(context.conntrack, flowsOfAdded(rules))
      }
      yield* reshare(context, ofOthers)
      yield* recordShares(context, ofOwn)
      const unrelayed = yield* Effect.forEach(reserved, (each) => relayAgain(context, each))
      return [...refused, ...unrelayed.flat()]
    })
  )

/** Replaces the kernel's table by the rules of all entries, in one transaction. Returns the rules it removed. */
export const replaceTable = Effect.fnUntraced(function* ({
  mappings,
  firewall,
  conntrack
}: MapperContext): Effect.fn.Return<ReadonlyArray<Rule>, FirewallError> {
  const rules = [...mappings.all()].flatMap(({ resources }) => resources.rules)
  const removed = yield* firewall.replace(rules)
  // While the table was missing, flows may have bypassed it.
  yield* forgetFlows(conntrack, [...flowsOfAdded(rules), ...flowsOfRemoved(removed)])
  return removed
})

/**
 * Retries the entries in conflict, whose ports may be free by now, and the relay's routes that are pending. Returns
 * the frontends that are served again. The caller holds the lock.
 */
export const retryEntries = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
) {
  const served: Array<string> = []
  for (const entry of [...entries].sort(widestFirst)) {
    const again = isConflicted(entry)
      ? Effect.map(reactivate(context, [entry]), (refused) => refused.length === 0)
      : Effect.uninterruptible(relayAsPlanned(context, entry))
    if (yield* again) served.push(frontendText(entry.mapping))
  }
  return served
})

/** Standbys without an entry before them get its place, in conflict: they are to be reactivated. */
const adoptOrphans = Effect.fnUntraced(function* ({ mappings, store }: MapperContext) {
  for (const entry of orphansOf(mappings)) {
    const mapping = withFrontend(entry.mapping)
    const records = [{ mapping, state: recordedState(entry.status) }]
    // What can't be recorded now is tried again with the conflicts.
    if (Result.isFailure(yield* Effect.result(store.remove([entry.mapping], records)))) return
    takeFrontend(mappings, entry, mapping)
    entry.status = nextStatus(entry.status, "conflict")
  }
})

/** The same for all such entries; costs next to nothing where there are none. Takes the lock. */
export const retryConflicts = (context: MapperContext): Effect.Effect<ReadonlyArray<string>> =>
  Effect.suspend(() => {
    const { mappings, claims } = context
    const wanting = () => [
      ...mappings.all().filter((entry) => isConflicted(entry) || entry.resources.relayPending)
    ]
    if (wanting().length === 0 && orphansOf(mappings).next().done) return Effect.succeed([])
    const retry = Effect.andThen(
      adoptOrphans(context),
      Effect.suspend(() => retryEntries(context, wanting()))
    )
    return Effect.andThen(
      claims.reclaim(wantedAgain(context, wanting().filter(isConflicted))),
      changing(context, retry)
    )
  })

/** Sockets of unspecified addresses are bound first, since they cover the others of their group. */
const widestFirst = (a: MappingEntry, b: MappingEntry): number =>
  Number(isUnspecified(b.mapping.host)) - Number(isUnspecified(a.mapping.host))

interface Reserved {
  readonly entry: MappingEntry
  readonly planned: Served
}

/** Plans the entries as before and reserves their ports; nothing is served yet. */
const reserveAgain = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
) {
  const reserved: Array<Reserved> = []
  const refused: Array<Refused> = []
  for (const entry of [...entries].sort(widestFirst)) {
    const { mapping } = entry
    if (mapping.standby) {
      entry.status = nextStatus(entry.status, "reactivated")
      continue
    }
    const again = planAgain(mapping, context.capabilities)
    if (Result.isFailure(again)) {
      refused.push(refusal(entry, again.failure))
      continue
    }
    const { planned, policy } = again.success
    const holds = planned.reserves ? yield* holdAgain(context, mapping) : Result.succeed([])
    if (Result.isFailure(holds)) {
      refused.push(refusal(entry, holds.failure.message))
      continue
    }
    entry.resources = resourcesOf(planned, policy, mapping, holds.success[0])
    entry.status = nextStatus(entry.status, "reactivated")
    reserved.push({ entry, planned })
  }
  return { reserved, refused }
})

/**
 * Passes the holds with the same port and backend as `beside`, since the mappings may have been one group, those
 * of the same service, and of other attachments of its container, one of which may have taken over from it.
 */
const holdAgain = (context: MapperContext, mapping: Mapping) => {
  const { mappings, allocator } = context
  const { protocol, host, port, backend, share, owner } = mapping
  const beside = mappings.colliding(protocol, host, port).flatMap((other): ReadonlyArray<Hold> => {
    const { hold } = other.resources
    const isBeside =
      sameBackend(backend, other.mapping.backend) ||
      isMember(other, share?.service) ||
      areOfOneContainer(owner, other.mapping.owner)
    return hold !== undefined && isBeside ? [hold] : []
  })
  const claimant = claimantOf(context, mapping)
  return Effect.result(
    allocator.reserve([mapping], { _tag: "Exact", port }, beside, { claimant, isKept: true })
  )
}

/** An entry that only the relay would serve stays in conflict if the relay refuses it. */
export const relayAgain = Effect.fnUntraced(function* (context: MapperContext, { entry, planned }: Reserved) {
  const { route } = entry.resources
  if (route === undefined) return []
  const opened = yield* Effect.result(context.relay.open(route))
  if (Result.isSuccess(opened)) return []
  const why = opened.failure.message
  entry.reason = why
  if (planned.redirects || planned.nat) {
    entry.resources = { ...entry.resources, route: undefined, relayPending: true }
    yield* Effect.logWarning(`${frontendText(entry.mapping)} is redirected, but not relayed: ${why}`)
    return []
  }
  const { rules } = entry.resources
  yield* setAside(context, [entry])
  const others = respread(servicesOf(context.mappings, [entry]))
  const add = rulesOfShares(others)
  if (rules.length > 0)
    yield* logFailure("removing rules", context.firewall.apply({ add, remove: withoutRules(rules, add) }))
  yield* reshare(context, others)
  return [[entry, why] as const]
})

/** Marks entries as conflicted; their rules are removed already, or were never added. */
export const setAside = ({ allocator }: MapperContext, entries: ReadonlyArray<MappingEntry>) => {
  const holds = entries.flatMap(({ resources }) => resources.hold ?? [])
  for (const entry of entries) {
    entry.status = nextStatus(entry.status, "conflict")
    entry.resources = noResources
  }
  return allocator.release(holds)
}

/** Opens the route that the current policy gives. */
const relayAsPlanned = Effect.fnUntraced(function* (
  { capabilities, relay }: MapperContext,
  entry: MappingEntry
) {
  const { mapping, resources } = entry
  const again = planAgain(mapping, capabilities)
  if (Result.isFailure(again)) return false
  const { planned, policy } = again.success
  const { route } = resourcesOf(planned, policy, mapping, resources.hold)
  const rerouted = yield* Effect.result(reroute(relay, resources.route, route))
  if (Result.isFailure(rerouted)) {
    entry.reason = rerouted.failure.message
    return false
  }
  entry.resources = { ...resources, route, relayPending: false }
  return true
})

/**
 * Closes the relay's routes and the adopted sockets that no mapping needs, and stops the other sockets without a
 * route from admitting traffic.
 */
const letGoOfTheRest = Effect.fnUntraced(function* ({ mappings, relay }: MapperContext) {
  const sockets = yield* HostSockets
  const routes = [...mappings.all()].flatMap(({ resources: { route } }) => route ?? [])
  const routed = new Set(routes.map(frontendText))
  for (const count of yield* relay.counted) if (!routed.has(frontendText(count))) yield* relay.close(count)
  const relayed = new Set(routes.map(({ socket }) => socket))
  for (const { resources } of mappings.all())
    if (resources.hold !== undefined && !relayed.has(resources.hold.socket))
      yield* logFailure("shutting an adopted socket", sockets.admit(resources.hold.socket, "nothing"))
  for (const socket of yield* sockets.closeUnopened)
    yield* Effect.logInfo(`closed the socket of ${frontendText(socket)}: nothing is mapped there`)
})

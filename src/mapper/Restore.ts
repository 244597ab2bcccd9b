/**
 * `restore`: brings back what was mapped when an earlier process ended. Ports are held again, the kernel's table is
 * replaced in one transaction so that traffic never notices, and what was never finished is undone.
 * `recoverConflicted`: the same, later, for what could not be brought back because its port was not to be had.
 */
import { Clock, Duration, Effect, Result } from "effect"
import { Conntrack, type FlowFrontend, flowsOfAdded, flowsOfRemoved } from "../firewall/Conntrack.ts"
import { Firewall, type FirewallError } from "../firewall/Firewall.ts"
import { HostSockets } from "../ports/HostSockets.ts"
import { type Hold, PortAllocator } from "../ports/PortAllocator.ts"
import { isUnspecified } from "../protocol/Address.ts"
import { frontendText } from "../protocol/PortBinding.ts"
import { Relay, type RouteFrontend } from "../relay/Relay.ts"
import { host, MapperConfig, type MapperServices } from "./Host.ts"
import { type Live, type Mapping, Mappings, mappingText, sameBackend } from "./Mapping.ts"
import { type LostRecord, MappingStore, recordedState, type Stored, type StoreError } from "./MappingStore.ts"
import { type Capabilities, type Plan, planGroup, routeOf, rulesOf, type Served } from "./Plan.ts"
import { salvage } from "./Salvage.ts"

export interface Restored {
  readonly live: number
  readonly unconfirmed: number
  /** Each as `0.0.0.0:8080/tcp: why`. */
  readonly conflicted: ReadonlyArray<string>
  readonly undone: number
  /** The record that could not be used, if so; what the kernel still had of it is among the unconfirmed. */
  readonly lost: LostRecord | undefined
}

/**
 * Runs once, before the first call is served. A port whose socket was adopted is held by that one, never let go for a
 * moment; what was adopted and belongs to no mapping is closed. Fails only where the store can't be read or the kernel's
 * table can't be set, and then holds nothing that was not adopted.
 */
export const restore: Effect.Effect<Restored, StoreError | FirewallError, MapperServices | HostSockets> =
  Effect.gen(function* () {
    const store = yield* MappingStore
    const mappings = yield* Mappings
    const stored = yield* store.load
    mappings.engine.number = stored.engine.epoch
    mappings.engine.activated = stored.engine.activated
    mappings.engine.sinceMillis = yield* Clock.currentTimeMillis

    const intents = stored.mappings.filter(({ state }) => state === "intent").map(({ mapping }) => mapping)
    const kept = stored.mappings.filter(({ state }) => state !== "intent")
    if (stored.lost !== undefined && stored.mappings.length === 0)
      kept.push(...(yield* readBack(stored.lost)))
    const attempts = yield* bringBackAll(kept)
    const conflicted: Array<string> = []
    const reasons = yield* Effect.forEach(
      attempts,
      (attempt) => (attempt.why === undefined ? serveAgain(attempt) : Effect.succeed(attempt.why)),
      { concurrency: opensAtOnce }
    )
    for (const [index, { live }] of attempts.entries()) {
      const why = reasons[index]
      if (why !== undefined) conflicted.push(`${mappingText(live.mapping)}: ${why}`)
      mappings.add(live)
    }
    yield* letGoOfTheRest
    if (intents.length > 0) yield* undo(intents)
    for (const text of conflicted)
      yield* Effect.logWarning(`could not be restored, and is kept as conflicted: ${text}`)
    const lives = attempts.map(({ live }) => live)
    return {
      live: lives.filter(({ standing }) => standing === "answered").length,
      unconfirmed: lives.filter(({ standing }) => standing === "unconfirmed").length,
      conflicted,
      undone: intents.length,
      lost: stored.lost
    }
  })

/** A relay that works on another thread answers each with a delay; they are asked for in order all the same. */
const opensAtOnce = 256

/** How often what is conflicted is tried again. */
export const recoverInterval = Duration.seconds(1)

/**
 * Tries again to serve what is conflicted, since its port may be free by now, and to relay what is redirected alone. Answers
 * the frontends that are served again. To be run from time to time; costs nothing where there is nothing to try.
 */
export const recoverConflicted: Effect.Effect<ReadonlyArray<string>, never, MapperServices> = Effect.gen(
  function* () {
    const mappings = yield* Mappings
    if (!isAny(mappings.all(), isWanting)) return []
    return yield* mappings.lock.alone(
      Effect.gen(function* () {
        const recovered: Array<string> = []
        for (const live of [...mappings.all()].filter(isWanting).sort(widestFirst)) {
          const again = isConflicted(live) ? recover(live) : relayAgain(live)
          if (yield* Effect.uninterruptible(again)) recovered.push(mappingText(live.mapping))
        }
        return recovered
      })
    )
  }
)

const isAny = <A>(all: Iterable<A>, is: (a: A) => boolean): boolean => {
  for (const one of all) if (is(one)) return true
  return false
}

const isConflicted = ({ standing }: Live): boolean => standing === "conflicted"

const isWanting = (live: Live): boolean => isConflicted(live) || live.unrelayed === true

/** A mapping that was tried to bring back, and why that could not be done. */
interface Attempt {
  readonly live: Live
  readonly planned: Served | undefined
  readonly why: string | undefined
}

/** Everything but the relay: the ports first, then the kernel's whole table at once. */
const bringBackAll = Effect.fnUntraced(function* (kept: ReadonlyArray<Stored>) {
  const firewall = yield* Firewall
  const allocator = yield* PortAllocator
  const attempts: Array<Attempt> = []
  const wide = new Map<string, Live>()
  const all = Effect.gen(function* () {
    for (const { mapping, state } of [...kept].sort(widestFirst)) {
      const covering = isUnspecified(mapping.host) ? undefined : wide.get(familyPort(mapping))
      const was = state === "answered" ? "answered" : "unconfirmed"
      const attempt = yield* bringBack(mapping, was, covering === undefined ? [] : [covering])
      // An adopted socket may be wider than what is left of its group.
      if (isUnspecified(attempt.live.hold?.socket.host ?? mapping.host))
        wide.set(familyPort(mapping), attempt.live)
      attempts.push(attempt)
    }
    const rules = attempts.flatMap(({ live }) => live.rules)
    yield* firewall.replace(rules)
    // Where the table was gone for a while, flows may have gone past it.
    yield* forgetFlows(flowsOfAdded(rules))
  })
  yield* Effect.onError(all, () => allocator.release(attempts.flatMap(({ live }) => live.hold ?? [])))
  return attempts
})

/** Sockets of unspecified addresses are bound first, since they cover the others of their group. */
const widestFirst = (a: { readonly mapping: Mapping }, b: { readonly mapping: Mapping }): number =>
  Number(isUnspecified(b.mapping.host)) - Number(isUnspecified(a.mapping.host))

const familyPort = ({ protocol, host, port }: Mapping): string => `${protocol} ${host.family} ${port}`

/** Plans and holds it again; what it serves is not changed. `siblings` may be of its group: same port, other address. */
const bringBack = Effect.fnUntraced(function* (
  mapping: Mapping,
  was: "answered" | "unconfirmed",
  siblings: ReadonlyArray<Live>
) {
  const capabilities = yield* MapperConfig
  const allocator = yield* PortAllocator
  const replanned = planAgain(mapping, capabilities)
  if (Result.isFailure(replanned)) return conflict(mapping, was, replanned.failure)
  const { plan, planned } = replanned.success
  const beside = siblings.flatMap(({ mapping: { backend }, hold }) =>
    hold !== undefined && sameBackend(backend, mapping.backend) ? [hold] : []
  )
  const held = planned.reserves
    ? yield* Effect.result(allocator.reserve([mapping], { _tag: "Exact", port: mapping.port }, beside))
    : Result.succeed<ReadonlyArray<Hold>>([])
  if (Result.isFailure(held)) return conflict(mapping, was, held.failure.message)
  const [hold] = held.success
  const live: Live = {
    mapping,
    standing: was,
    hold,
    rules: rulesOf(planned, mapping.port, plan.policy),
    route: hold === undefined ? undefined : routeOf(planned, hold, plan.policy),
    deliveries: new Set()
  }
  return { live, planned, why: undefined } satisfies Attempt
})

/** The same plan as when it was asked, in the mode that it got then. */
const planAgain = (
  mapping: Mapping,
  capabilities: Capabilities
): Result.Result<{ readonly plan: Plan; readonly planned: Served }, string> => {
  const { protocol, host, asked, backend, port, labels } = mapping
  const group = {
    entries: [{ protocol, host, asked, backend }],
    ports: { _tag: "Exact", port },
    labels
  } as const
  const plan = planGroup(group, { ...capabilities, defaultMode: mapping.mode })
  if (Result.isFailure(plan)) return Result.fail(plan.failure.message)
  const [planned] = plan.success.entries
  return planned?._tag === "Served"
    ? Result.succeed({ plan: plan.success, planned })
    : Result.fail(planned?.reason ?? "there is nothing to serve")
}

const conflict = (mapping: Mapping, was: "answered" | "unconfirmed", why: string): Attempt => ({
  live: {
    mapping,
    standing: "conflicted",
    was,
    hold: undefined,
    rules: [],
    route: undefined,
    deliveries: new Set()
  },
  planned: undefined,
  why
})

/** Lets the relay serve it. Where nothing else leads its traffic, a relay that refuses makes it conflicted. */
const serveAgain = Effect.fnUntraced(function* ({ live, planned }: Attempt) {
  if (live.route === undefined) return undefined
  const userland = yield* Relay
  const opened = yield* Effect.result(userland.open(live.route))
  if (Result.isSuccess(opened)) return undefined
  const why = opened.failure.message
  live.route = undefined
  if (planned?.redirects || planned?.nat) {
    live.unrelayed = true
    yield* Effect.logWarning(`${mappingText(live.mapping)} is redirected, but not relayed: ${why}`)
    return undefined
  }
  yield* letGo(live)
  live.was = live.standing === "answered" ? "answered" : "unconfirmed"
  live.standing = "conflicted"
  return why
})

/** What an earlier holder's sockets and routes served, and no mapping wants: nothing is let in there any more. */
const letGoOfTheRest = Effect.gen(function* () {
  const mappings = yield* Mappings
  const sockets = yield* HostSockets
  const userland = yield* Relay
  const lives = [...mappings.all()]
  const routed = new Set(lives.flatMap(({ route }) => (route === undefined ? [] : [routeText(route)])))
  for (const count of yield* userland.counted) if (!routed.has(routeText(count))) yield* userland.close(count)
  const relayed = new Set(lives.flatMap(({ route }) => (route === undefined ? [] : [route.socket])))
  for (const { hold } of lives)
    if (hold !== undefined && !relayed.has(hold.socket))
      yield* reported("shutting an adopted socket", sockets.admit(hold.socket, "nothing"))
  for (const { protocol, host, port } of yield* sockets.closeUnopened)
    yield* Effect.logInfo(
      `closed the socket of ${frontendText(protocol, host, port)}: nothing is mapped there`
    )
})

const routeText = ({ protocol, host, port }: RouteFrontend): string => frontendText(protocol, host, port)

const letGo = Effect.fnUntraced(function* (live: Live) {
  const { firewall, allocator } = yield* host
  if (live.rules.length > 0)
    yield* reported("removing rules", firewall.apply({ add: [], remove: live.rules }))
  if (live.hold !== undefined) yield* allocator.release([live.hold])
  live.rules = []
  live.hold = undefined
})

/** Whether it is served again; if not, it is as it was. */
const recover = Effect.fnUntraced(function* (live: Live) {
  const { mappings, firewall, allocator } = yield* host
  const { mapping } = live
  const siblings = mappings.colliding(mapping.protocol, mapping.host, mapping.port)
  const was = recordedState(live) === "answered" ? "answered" : "unconfirmed"
  const attempt = yield* bringBack(mapping, was, siblings)
  if (attempt.why !== undefined) return false
  const { standing, hold, rules } = attempt.live
  if (rules.length > 0) {
    const applied = yield* Effect.result(firewall.apply({ add: rules, remove: [] }))
    if (Result.isFailure(applied)) {
      if (hold !== undefined) yield* allocator.release([hold])
      return false
    }
    yield* forgetFlows(flowsOfAdded(rules))
  }
  if ((yield* serveAgain(attempt)) !== undefined) return false
  const { route, unrelayed } = attempt.live
  Object.assign(live, { standing, hold, rules, route }, unrelayed && { unrelayed })
  delete live.was
  return true
})

/** The route as it is now: a change of policy may have opened it meanwhile. */
const relayAgain = Effect.fnUntraced(function* (live: Live) {
  const { capabilities, relay } = yield* host
  const { mapping, hold } = live
  const again = planAgain(mapping, capabilities)
  if (live.route === undefined && hold !== undefined && Result.isSuccess(again)) {
    const { plan, planned } = again.success
    const route = routeOf(planned, hold, plan.policy)
    if (route !== undefined && Result.isFailure(yield* Effect.result(relay.open(route)))) return false
    live.route = route
  }
  delete live.unrelayed
  return true
})

/** What an unfinished call left: no rule and no socket any more, but flows perhaps, and its record. */
const undo = Effect.fnUntraced(function* (intents: ReadonlyArray<Mapping>) {
  const { capabilities, store } = yield* host
  const rules = intents.flatMap((mapping) => {
    const again = planAgain(mapping, capabilities)
    return Result.isSuccess(again)
      ? rulesOf(again.success.planned, mapping.port, again.success.plan.policy)
      : []
  })
  yield* forgetFlows(flowsOfRemoved(rules))
  // One that stays in the record is forgotten by the next look at what is in doubt.
  yield* reported("forgetting what was never finished", store.remove(intents))
})

/** What the kernel still redirects of a record that is lost. */
const readBack = Effect.fnUntraced(function* ({ why, path }: LostRecord) {
  const { store, firewall } = yield* host
  yield* Effect.logWarning(`${why}; it was set aside as ${path}, and what the kernel still redirects is kept`)
  const read = yield* Effect.result(firewall.read)
  if (Result.isFailure(read)) {
    yield* Effect.logWarning(`nothing could be read back: ${read.failure.message}`)
    return []
  }
  const found = salvage(read.success.rules, yield* Clock.currentTimeMillis)
  if (found.length > 0) yield* reported("recording what was read back", store.put(found, "applied"))
  return found.map((mapping): Stored => ({ mapping, state: "applied" }))
})

const forgetFlows = Effect.fnUntraced(function* (flows: ReadonlyArray<FlowFrontend>) {
  if (flows.length === 0) return
  const conntrack = yield* Conntrack
  yield* reported("forgetting flows", conntrack.flush(flows))
})

/** A restore goes on past what it can't do, and tells. */
const reported = <E extends { readonly message: string }, R>(
  what: string,
  effect: Effect.Effect<void, E, R>
) => Effect.catch(effect, (error) => Effect.logWarning(`${what}: ${error.message}`))

/**
 * `restore`: brings back what was mapped when an earlier process ended. Ports are held again, the kernel's table is
 * replaced in one transaction so that traffic never notices, and what was never finished is undone.
 */
import { Clock, Effect, Result } from "effect"
import { flowsOfAdded, flowsOfRemoved, forgetFlows } from "../firewall/Conntrack.ts"
import type { FirewallError } from "../firewall/Firewall.ts"
import { HostSockets } from "../ports/HostSockets.ts"
import { isUnspecified } from "../protocol/Address.ts"
import { frontendText } from "../protocol/PortBinding.ts"
import type { RouteFrontend } from "../relay/Relay.ts"
import { type Attempt, bringBack, planAgain, reported, serveAgain, widestFirst } from "./BringBack.ts"
import { type Host, host, type MapperServices } from "./Host.ts"
import { type Live, type Mapping, mappingText } from "./Mapping.ts"
import type { LostRecord, Stored, StoreError } from "./MappingStore.ts"
import { rulesOf } from "./Plan.ts"
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
    const on = yield* host
    const { mappings, store } = on
    const stored = yield* store.load
    mappings.engine.number = stored.engine.epoch
    mappings.engine.activated = stored.engine.activated
    mappings.engine.sinceMillis = yield* Clock.currentTimeMillis

    const intents = stored.mappings.filter(({ state }) => state === "intent").map(({ mapping }) => mapping)
    const kept = stored.mappings.filter(({ state }) => state !== "intent")
    if (stored.lost !== undefined && stored.mappings.length === 0)
      kept.push(...(yield* readBack(on, stored.lost)))
    const attempts = yield* bringBackAll(on, kept)
    const conflicted: Array<string> = []
    const reasons = yield* Effect.forEach(
      attempts,
      (attempt) => (attempt.why === undefined ? serveAgain(on, attempt) : Effect.succeed(attempt.why)),
      { concurrency: opensAtOnce }
    )
    for (const [index, { live }] of attempts.entries()) {
      const why = reasons[index]
      if (why !== undefined) conflicted.push(`${mappingText(live.mapping)}: ${why}`)
      mappings.add(live)
    }
    yield* letGoOfTheRest(on)
    if (intents.length > 0) yield* undo(on, intents)
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

/** Everything but the relay: the ports first, then the kernel's whole table at once. */
const bringBackAll = Effect.fnUntraced(function* (on: Host, kept: ReadonlyArray<Stored>) {
  const { firewall, allocator } = on
  const attempts: Array<Attempt> = []
  const wide = new Map<string, Live>()
  const all = Effect.gen(function* () {
    for (const { mapping, state } of [...kept].sort(widestFirst)) {
      const covering = isUnspecified(mapping.host) ? undefined : wide.get(familyPort(mapping))
      const was = state === "answered" ? "answered" : "unconfirmed"
      const attempt = yield* bringBack(on, mapping, was, covering === undefined ? [] : [covering])
      // An adopted socket may be wider than what is left of its group.
      if (isUnspecified(attempt.live.hold?.socket.host ?? mapping.host))
        wide.set(familyPort(mapping), attempt.live)
      attempts.push(attempt)
    }
    const rules = attempts.flatMap(({ live }) => live.rules)
    yield* firewall.replace(rules)
    // Where the table was gone for a while, flows may have gone past it.
    yield* forgetFlows(on.conntrack, flowsOfAdded(rules))
  })
  yield* Effect.onError(all, () => allocator.release(attempts.flatMap(({ live }) => live.hold ?? [])))
  return attempts
})

const familyPort = ({ protocol, host, port }: Mapping): string => `${protocol} ${host.family} ${port}`

/** What an earlier holder's sockets and routes served, and no mapping wants: nothing is let in there any more. */
const letGoOfTheRest = Effect.fnUntraced(function* ({ mappings, relay }: Host) {
  const sockets = yield* HostSockets
  const lives = [...mappings.all()]
  const routed = new Set(lives.flatMap(({ route }) => (route === undefined ? [] : [routeText(route)])))
  for (const count of yield* relay.counted) if (!routed.has(routeText(count))) yield* relay.close(count)
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

/** What an unfinished call left: no rule and no socket any more, but flows perhaps, and its record. */
const undo = Effect.fnUntraced(function* (on: Host, intents: ReadonlyArray<Mapping>) {
  const { capabilities, store } = on
  const rules = intents.flatMap((mapping) => {
    const again = planAgain(mapping, capabilities)
    return Result.isSuccess(again)
      ? rulesOf(again.success.planned, mapping.port, again.success.plan.policy)
      : []
  })
  yield* forgetFlows(on.conntrack, flowsOfRemoved(rules))
  // One that stays in the record is forgotten by the next look at what is in doubt.
  yield* reported("forgetting what was never finished", store.remove(intents))
})

/** What the kernel still redirects of a record that is lost. */
const readBack = Effect.fnUntraced(function* ({ store, firewall }: Host, { why, path }: LostRecord) {
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

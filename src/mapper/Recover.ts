/** What can't be served, because its port is not to be had or the relay refuses it, is tried again. */
import { Duration, Effect, Result } from "effect"
import { flowsOfAdded, forgetFlows } from "../firewall/Conntrack.ts"
import { type Route, reroute } from "../relay/Relay.ts"
import { bringBack, planAgain, serveAgain, widestFirst } from "./BringBack.ts"
import type { Host } from "./Host.ts"
import { isConflicted, type Live, mappingKey, mappingText, setAside } from "./Mapping.ts"
import { recordedState } from "./MappingStore.ts"
import { routeOf } from "./Plan.ts"
import { recordAgain } from "./UnmapPorts.ts"

/** How often what is conflicted is tried again. */
export const recoverInterval = Duration.seconds(1)

/**
 * Tries again to serve what is conflicted, since its port may be free by now, and to relay what is redirected alone. Answers
 * the frontends that are served again. To be run from time to time; costs nothing where there is nothing to try.
 */
export const recoverConflicted = (on: Host): Effect.Effect<ReadonlyArray<string>> =>
  Effect.suspend(() => {
    if (!isAny(on.mappings.all(), isWanting)) return Effect.succeed([])
    return on.mappings.lock.alone(
      Effect.suspend(() => recoverLives(on, [...on.mappings.all()].filter(isWanting)))
    )
  })

/** The same for these alone; the caller has the lock. */
export const recoverLives = Effect.fnUntraced(function* (
  on: Host,
  lives: ReadonlyArray<Live>
): Effect.fn.Return<ReadonlyArray<string>> {
  const recovered: Array<string> = []
  for (const live of [...lives].sort(widestFirst)) {
    const again = isConflicted(live) ? recover(on, live) : relayAgain(on, live)
    if (yield* Effect.uninterruptible(again)) recovered.push(mappingText(live.mapping))
  }
  return recovered
})

/**
 * What gave way is mapped again, and served if it was, unless another one has its very frontend: where that one's answer is
 * still on its way, it comes back when that is lost. The caller has the lock.
 */
export const comeBack = Effect.fnUntraced(function* (on: Host, gone: ReadonlyArray<Live>) {
  const back = gone.filter((live) => {
    const there = on.mappings.get(mappingKey(live.mapping))
    if (there !== undefined && there !== live && there.standing === "provisional") {
      const [heir] = there.deliveries
      if (heir !== undefined) heir.gone = [...heir.gone, live]
    }
    return there === undefined
  })
  if (back.length === 0) return
  const served = back.filter((live) => !isConflicted(live))
  for (const live of back) {
    setAside(live)
    on.mappings.add(live)
  }
  yield* recordAgain(on, back)
  yield* recoverLives(on, served)
  for (const { mapping } of served.filter(isConflicted))
    yield* Effect.logWarning(`${mappingText(mapping)} can't be served again yet, and is kept as conflicted`)
})

const isAny = <A>(all: Iterable<A>, is: (a: A) => boolean): boolean => {
  for (const one of all) if (is(one)) return true
  return false
}

const isWanting = (live: Live): boolean => isConflicted(live) || live.unrelayed === true

/** Whether it is served again; if not, it is as it was. */
const recover = Effect.fnUntraced(function* (on: Host, live: Live) {
  const { mappings, firewall, allocator } = on
  const { mapping } = live
  const siblings = mappings.colliding(mapping.protocol, mapping.host, mapping.port)
  const was = recordedState(live) === "answered" ? "answered" : "unconfirmed"
  const attempt = yield* bringBack(on, mapping, was, siblings)
  if (attempt.why !== undefined) return false
  const { standing, hold, rules } = attempt.live
  if (rules.length > 0) {
    const applied = yield* Effect.result(firewall.apply({ add: rules, remove: [] }))
    if (Result.isFailure(applied)) {
      if (hold !== undefined) yield* allocator.release([hold])
      return false
    }
    yield* forgetFlows(on.conntrack, flowsOfAdded(rules))
  }
  if ((yield* serveAgain(on, attempt)) !== undefined) return false
  const { route, unrelayed } = attempt.live
  Object.assign(live, { standing, hold, rules, route }, unrelayed && { unrelayed })
  delete live.was
  return true
})

/** After a change of route that is undone; where the relay refuses, it is relayed as the change has it, and tried again. */
export const relayAsBefore = (
  { relay }: Host,
  live: Live,
  now: Route | undefined,
  before: Route | undefined
): Effect.Effect<void> =>
  Effect.catch(reroute(relay, now, before), (error) => {
    live.route = now
    live.unrelayed = true
    return Effect.logError(`${mappingText(live.mapping)} can't be relayed as before: ${error.message}`)
  })

/** The route as its policy has it now. */
const relayAgain = Effect.fnUntraced(function* ({ capabilities, relay }: Host, live: Live) {
  const { mapping, hold } = live
  const again = planAgain(mapping, capabilities)
  if (hold !== undefined && Result.isSuccess(again)) {
    const { plan, planned } = again.success
    const route = routeOf(planned, hold, plan.policy)
    if (Result.isFailure(yield* Effect.result(reroute(relay, live.route, route)))) return false
    live.route = route
  }
  delete live.unrelayed
  return true
})

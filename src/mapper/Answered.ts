/**
 * What becomes of a call once its answer is delivered or lost: it is answered for good, or undone as far as nobody else has
 * been answered with it. To be run with the lock.
 */
import { Effect } from "effect"
import { flowsOfAdded, flowsOfRemoved } from "../firewall/Conntrack.ts"
import { withoutRules } from "../firewall/Firewall.ts"
import type { Host } from "./Host.ts"
import { type Delivery, isConflicted, type Live, mappingKey, type Replaced } from "./Mapping.ts"
import { narrowedFlows } from "./Narrowed.ts"
import { comeBack, relayAsBefore } from "./Recover.ts"
import { told } from "./Transaction.ts"
import { removeLives } from "./UnmapPorts.ts"

/** What one call made or touched, until its answer is delivered. */
export interface Answering {
  readonly delivery: Delivery
  readonly lives: ReadonlyArray<Live>
}

/** The answer was delivered: what it named, and is still there, is answered for good; what it takes the place of goes. */
export const confirm = (on: Host, { lives, delivery }: Answering): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { mappings, store } = on
    mappings.underWay.delete(delivery)
    const current = lives.filter((live) => live.deliveries.delete(delivery) && isCurrent(on, live))
    for (const live of current) {
      live.standing = "answered"
      live.delivered = Math.max(live.delivered ?? 0, delivery.number)
    }
    const answered = current.map(({ mapping }) => mapping)
    const recorded =
      answered.length === 0 ? Effect.void : told("recording the answer", store.put(answered, "answered"))
    // Removed first: a kill in between leaves nothing in the way that the caller knows to be gone.
    return delivery.supersedes.length === 0
      ? recorded
      : Effect.andThen(removeSuperseded(on, delivery, delivery.supersedes), recorded)
  })

/** Those that a later call has answered with stay; one that is about to decides when it is delivered or lost. */
const removeSuperseded = (
  on: Host,
  delivery: Delivery,
  superseded: ReadonlyArray<Live>
): Effect.Effect<void> => {
  const removed = superseded.filter((live) => {
    if (!isCurrent(on, live) || isDeliveredAfter(delivery, live)) return false
    const later = laterThan(delivery, live)
    later?.superseded.push(live)
    return later === undefined
  })
  // An answer from before, should it still be delivered, does not make it the caller's again.
  for (const live of removed) live.deliveries.clear()
  return abandon(on, removed, "removing what has a host port no longer")
}

const isCurrent = ({ mappings }: Host, live: Live): boolean => mappings.get(mappingKey(live.mapping)) === live

const isDeliveredAfter = ({ number }: Delivery, { delivered }: Live): boolean => (delivered ?? 0) > number

/** A later call that answered with it, too, and is not delivered yet. */
const laterThan = ({ number }: Delivery, { deliveries }: Live): Delivery | undefined =>
  [...deliveries].find((other) => other.number > number)

/** Removes what is nobody's any more; what can't be removed now gives way to any other claim. */
const abandon = (on: Host, lives: ReadonlyArray<Live>, what: string): Effect.Effect<void> =>
  Effect.catch(removeLives(on, lives), (error) => {
    for (const live of lives) if (!isConflicted(live)) live.standing = "unconfirmed"
    return Effect.logError(`${what}: ${error.message}`)
  })

/** The answer never arrived: what nobody else has answered with is undone, what was there before is as it was. */
export const retract = Effect.fnUntraced(function* (on: Host, { lives, delivery }: Answering) {
  on.mappings.underWay.delete(delivery)
  for (const live of lives) live.deliveries.delete(delivery)
  const orphaned = lives.filter(
    (live) => live.standing === "provisional" && live.deliveries.size === 0 && isCurrent(on, live)
  )
  yield* abandon(on, orphaned, "undoing an undelivered answer")
  yield* removeSuperseded(on, delivery, delivery.superseded)
  yield* comeBack(on, delivery.gone)
  // A later call answers with the policy as it is now; an earlier one, delivered or not yet, with the policy as it was.
  const mine = delivery.changed.filter((change) => {
    const { live } = change
    if (!isCurrent(on, live) || isDeliveredAfter(delivery, live)) return false
    const later = laterThan(delivery, live)
    if (later !== undefined) leaveTo(later, change)
    return later === undefined
  })
  yield* told("undoing an undelivered change of policy", restorePolicies(on, mine))
})

/** Where that one's answer is lost, too, nobody was answered with the policy in between. */
const leaveTo = (later: Delivery, change: Replaced): void => {
  const own = later.changed.find(({ live }) => live === change.live)
  if (own === undefined) later.changed.push(change)
  else own.before = change.before
}

const restorePolicies = Effect.fnUntraced(function* (on: Host, changed: ReadonlyArray<Replaced>) {
  if (changed.length === 0) return
  const add = changed.flatMap(({ before }) => before.rules)
  const now = changed.flatMap(({ live }) => live.rules)
  const remove = withoutRules(now, add)
  const routes = changed.map(({ live }) => live.route)
  const narrowed = narrowedFlows(
    changed.map(({ live: { rules, route }, before }) => ({ before: { rules, route }, after: before }))
  )
  // Where the kernel refuses, it is repaired by what is known of the mappings from now on.
  for (const { live, before } of changed) Object.assign(live, before)
  if (add.length > 0 || remove.length > 0)
    yield* told("redirecting as before", on.firewall.apply({ add, remove }))
  const flows = [...flowsOfAdded(add), ...flowsOfRemoved(remove), ...narrowed]
  if (flows.length > 0) yield* told("forgetting flows", on.conntrack.flush(flows))
  for (const [index, { live, before }] of changed.entries())
    yield* relayAsBefore(on, live, routes[index], before.route)
  yield* on.store.put(
    changed.map(({ before }) => before.mapping),
    "applied"
  )
})

/**
 * What becomes of a call once its answer is delivered or lost: it is answered for good, or undone as far as nobody else has
 * been answered with it. To be run with the lock.
 */
import { Effect } from "effect"
import { flowsOfAdded, flowsOfRemoved } from "../firewall/Conntrack.ts"
import { withoutRules } from "../firewall/Firewall.ts"
import { reroute } from "../relay/Relay.ts"
import type { Host } from "./Host.ts"
import { type Delivery, type Live, mappingKey, type Replaced } from "./Mapping.ts"
import { comeBack } from "./Recover.ts"
import { told } from "./Transaction.ts"
import { again, removeLives } from "./UnmapPorts.ts"

/** What one call made or touched, until its answer is delivered. */
export interface Answering {
  readonly delivery: Delivery
  readonly lives: ReadonlyArray<Live>
}

/** The answer was delivered: what it named, and is still there, is answered for good; what it took the place of is gone. */
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
    // Forgotten first: a kill in between leaves nothing in the way that the caller knows to be gone.
    return delivery.superseded.length === 0
      ? recorded
      : Effect.andThen(forgetSuperseded(on, delivery.superseded), recorded)
  })

/** But for those in whose place another one is recorded by now. */
const forgetSuperseded = (
  { mappings, store }: Host,
  superseded: ReadonlyArray<Live>
): Effect.Effect<void> => {
  const free = superseded
    .map(({ mapping }) => mapping)
    .filter((mapping) => mappings.get(mappingKey(mapping)) === undefined)
  return free.length === 0
    ? Effect.void
    : told("forgetting what has a host port no longer", again(store.remove(free), 3))
}

const isCurrent = ({ mappings }: Host, live: Live): boolean => mappings.get(mappingKey(live.mapping)) === live

/** The answer never arrived: what nobody else has answered with is undone, what was there before is as it was. */
export const retract = Effect.fnUntraced(function* (on: Host, { lives, delivery }: Answering) {
  on.mappings.underWay.delete(delivery)
  for (const live of lives) live.deliveries.delete(delivery)
  const orphaned = lives.filter(
    (live) => live.standing === "provisional" && live.deliveries.size === 0 && isCurrent(on, live)
  )
  yield* Effect.catch(removeLives(on, orphaned), (error) => {
    for (const live of orphaned) live.standing = "unconfirmed"
    return Effect.logError(`undoing an undelivered answer: ${error.message}`)
  })
  yield* comeBack(on, delivery.gone)
  // A later call answers with the policy as it is now; an earlier one, delivered or not yet, with the policy as it was.
  const mine = delivery.changed.filter((change) => {
    const { live } = change
    if (!isCurrent(on, live) || (live.delivered ?? 0) > delivery.number) return false
    const later = [...live.deliveries].find(({ number }) => number > delivery.number)
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
  if (add.length > 0 || remove.length > 0) yield* on.firewall.apply({ add, remove })
  const flows = [...flowsOfAdded(add), ...flowsOfRemoved(remove)]
  if (flows.length > 0) yield* told("forgetting flows", on.conntrack.flush(flows))
  for (const { live, before } of changed) {
    yield* reroute(on.relay, live.route, before.route)
    Object.assign(live, before)
  }
  yield* on.store.put(
    changed.map(({ before }) => before.mapping),
    "applied"
  )
})

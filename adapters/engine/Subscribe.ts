/**
 * `Driver.followContainer` and `followInterface`: publishes ports of a container or at an interface, and subscribes to
 * it.
 */
import { Effect, Exit, Result, Schema } from "effect"
import { policyOf } from "../../src/mapper/plan/LabelIssues.ts"
import type { InterfaceAddresses, Interfaces } from "../../src/ports/InterfaceAddresses.ts"
import {
  CurrentOwner,
  type FollowRequest,
  type InterfaceRequest,
  isSession
} from "../../src/protocol/Driver.ts"
import { publishLabel } from "../../src/protocol/FollowLabels.ts"
import type { PortBinding } from "../../src/protocol/PortBinding.ts"
import { interfaceOf, publishText } from "../../src/protocol/PublishSyntax.ts"
import type { RequestError } from "../../src/protocol/RequestError.ts"
import { mapDesired } from "./Apply.ts"
import { desiredBySubscription, followLabel, together } from "./Desired.ts"
import { mapActions } from "./Difference.ts"
import type { Container } from "./Engine.ts"
import { findContainer } from "./Placement.ts"
import { addressesText, type Subscription } from "./Subscription.ts"
import { personsOwner, type WatchState } from "./WatchState.ts"

/** A container or an interface that can't be followed. */
export class FollowRefused extends Schema.TaggedError<FollowRefused>()("FollowRefused", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** What both have in common. */
interface Subscribing {
  readonly state: WatchState
  readonly interfaces: InterfaceAddresses["Service"]
  /** Runs if the subscription is undone. */
  readonly onUndone: Effect.Effect<void>
}

/** Maps all of the ports or none; the scope is the delivery of the answer, see `Driver`. */
export const subscribeToContainer = Effect.fnUntraced(function* (
  subscribing: Subscribing,
  { container: text, ...request }: FollowRequest,
  containers: ReadonlyArray<Container>
) {
  const { id, name } = yield* runningContainer(text, containers)
  const added = yield* subscriptionsTo({ id, name }, request, yield* followingOwner)
  return yield* subscribe(subscribing, added, containers)
})

/** As `subscribeToContainer`; what waits for an address is not in the answer. */
export const subscribeToInterface = Effect.fnUntraced(function* (
  subscribing: Subscribing,
  { to, ...request }: InterfaceRequest
) {
  const owner = yield* followingOwner
  if (isSession(owner))
    return yield* new FollowRefused({
      detail: `${owner} is a session, which ends, and an interface is followed until it is unmapped: name another owner`
    })
  const name = addressesText(to)
  return yield* subscribe(subscribing, yield* subscriptionsTo({ id: name, name }, request, owner), [])
})

/** The default owner is an Engine, which follows nothing: the caller is a user who gave no owner. */
const followingOwner = Effect.map(CurrentOwner, (owner) => (owner === "engine" ? personsOwner : owner))

/** The labels are checked here: the driver sees them only once an interface has an address. */
const subscriptionsTo = (
  target: Pick<Subscription, "id" | "name">,
  { publish, labels }: Pick<FollowRequest, "publish" | "labels">,
  owner: string
): Effect.Effect<ReadonlyArray<Subscription>, RequestError> =>
  Effect.forEach(publish, (each) => {
    const text = publishText(each)
    const own = new Map([...labels, followLabel(target), [publishLabel, text]])
    return Effect.as(Effect.fromResult(policyOf(own)), {
      ...target,
      publish: text,
      labels: Object.fromEntries(labels),
      owner,
      without: []
    })
  })

const subscribe = Effect.fnUntraced(function* (
  { state, interfaces, onUndone }: Subscribing,
  added: ReadonlyArray<Subscription>,
  containers: ReadonlyArray<Container>
) {
  const isNamed = added.some(({ publish }) => interfaceOf(publish) !== undefined)
  const addresses: Interfaces = isNamed ? yield* interfaces.current : new Map()
  const around = { all: containers, interfaces: addresses, sleeps: false }
  const { groups, problems } = together(added.map((each) => desiredBySubscription(each, around)))
  // An interface is waited for.
  const problem = problems.find(({ waiting }) => !waiting)
  if (problem !== undefined)
    return yield* new FollowRefused({ detail: `container ${problem.name}: ${problem.detail}` })
  let unsubscribe: (() => void) | undefined
  yield* Effect.addFinalizer((exit) => {
    if (Exit.isSuccess(exit) || unsubscribe === undefined) return Effect.void
    // The driver itself undoes the mappings.
    state.undone(groups)
    unsubscribe()
    return onUndone
  })
  const mapped = new Map<string, ReadonlyArray<PortBinding>>()
  // Requests even existing mappings from the driver again.
  for (const { desired, tries } of mapActions(groups, state.observed, state.granted)) {
    const [first = desired.group.ports, second] = tries
    const mapping = mapDesired(desired, first)
    const orElse = second === undefined ? mapping : Effect.catch(mapping, () => mapDesired(desired, second))
    mapped.set(desired.key, yield* orElse)
  }
  for (const each of groups) state.mapped(each, mapped.get(each.key) ?? [])
  unsubscribe = state.subscribe(added)
  return groups.flatMap(({ key }) => mapped.get(key) ?? [])
})

const runningContainer = (text: string, containers: ReadonlyArray<Container>) =>
  Effect.fromResult(
    findContainer(text, containers).pipe(
      Result.filterOrFail(
        ({ running }) => running,
        ({ name }) => `container ${name} is not running`
      ),
      Result.mapError((detail) => new FollowRefused({ detail }))
    )
  )

/** `Driver.followContainer`: publishes a container's ports by its name, and subscribes to it. */
import { Effect, Exit, Result, Schema } from "effect"
import { CurrentOwner, type FollowRequest } from "../../src/protocol/Driver.ts"
import type { PortBinding } from "../../src/protocol/PortBinding.ts"
import { publishText } from "../../src/protocol/PublishSyntax.ts"
import { mapDesired } from "./Apply.ts"
import type { ContainerSubscription } from "./ContainerSubscription.ts"
import { desiredBySubscription, together } from "./Desired.ts"
import { mapActions } from "./Difference.ts"
import type { Container } from "./Engine.ts"
import { findContainer } from "./Placement.ts"
import { personsOwner, type WatchState } from "./WatchState.ts"

/** A container that can't be followed. */
export class FollowRefused extends Schema.TaggedError<FollowRefused>()("FollowRefused", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/**
 * Maps all of the ports or none; the scope is the delivery of the answer, see `Driver`. Runs `onUndone` if it is
 * undone.
 */
export const subscribe = Effect.fnUntraced(function* (
  state: WatchState,
  request: FollowRequest,
  containers: ReadonlyArray<Container>,
  onUndone: Effect.Effect<void>
) {
  const container = yield* runningContainer(request.container, containers)
  // The default owner is an Engine, which follows no container: the caller is a user who gave no owner.
  const caller = yield* CurrentOwner
  const owner = caller === "engine" ? personsOwner : caller
  const added = request.publish.map(
    (publish): ContainerSubscription => ({
      id: container.id,
      name: container.name,
      publish: publishText(publish),
      labels: Object.fromEntries(request.labels),
      owner,
      without: []
    })
  )
  const { groups, problems } = together(added.map((each) => desiredBySubscription(each, containers)))
  const [problem] = problems
  if (problem !== undefined)
    return yield* new FollowRefused({ detail: `container ${container.name}: ${problem.detail}` })
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

/** Carries out what `Difference` returns, and records the outcome in the state. A failure does not stop the rest. */
import { Effect, Option, Result, type Scope } from "effect"
import { idleLabel } from "../../src/mapper/model/Labels.ts"
import { CurrentOwner, type Driver, type DriverError } from "../../src/protocol/Driver.ts"
import { publishLabel } from "../../src/protocol/FollowLabels.ts"
import { mapGroup, mapGroupsTogether, unmapBindings } from "../../src/protocol/Operations.ts"
import type { PortBinding, PortRequest } from "../../src/protocol/PortBinding.ts"
import { type DesiredGroup, type Problem, problemOf } from "./Desired.ts"
import { batchesOf, type Difference, type MapAction, type ReleaseAction } from "./Difference.ts"
import type { WatchState } from "./WatchState.ts"

export interface Applied {
  /** The groups that could not be mapped. */
  readonly problems: ReadonlyArray<Problem>
  /** Whether every binding to release was released. */
  readonly released: boolean
}

export const applyDifference = Effect.fnUntraced(function* (
  state: WatchState,
  { release, map, after }: Difference
): Effect.fn.Return<Applied, never, Driver> {
  const released = release.length === 0 || (yield* releaseAll(state, release))
  const problems: Array<Problem> = []
  const published: Array<DesiredGroup> = []
  // Maps batch by batch, so that exact ports that must be mapped one by one still come before groups that pick from
  // a range.
  for (const batch of batchesOf(map)) {
    const together = yield* mapTogether(
      state,
      batch.filter(({ desired }) => !state.isDismissed(desired))
    )
    for (const action of batch) {
      if (state.isDismissed(action.desired)) continue
      const error = together ? undefined : yield* mapAlone(state, action)
      if (error === undefined) published.push(action.desired)
      else problems.push(problemOf(action.desired, error.message, false))
    }
  }
  for (const [idle, groups] of Map.groupBy(published, ({ group }) => group.labels.get(idleLabel)))
    yield* logPorts(
      groups.map(({ name }) => name),
      idle ?? "published"
    )
  const stuck = new Set(problems.map(({ desired }) => desired?.key))
  // The groups have other bindings by now: those of a plain port were moved, so there is nothing to unmap.
  const moved = after.filter(({ key }) => !stuck.has(key))
  const left = moved.length === 0 || (yield* unmap(moved))
  return { problems, released: released && left }
})

/** Maps one group on behalf of its owner; the scope is the delivery of the answer, see `Driver`. */
export const mapDesired = (
  { group, owner }: DesiredGroup,
  ports: PortRequest
): Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Driver | Scope.Scope> =>
  calledAs(owner, mapGroup({ ...group, ports }))

const unmap = Effect.fnUntraced(function* (actions: ReadonlyArray<ReleaseAction>) {
  const bindings = actions.flatMap((action) => action.bindings)
  const result = yield* Effect.result(unmapBindings({ bindings, labels: new Map() }))
  if (Result.isSuccess(result)) return true
  yield* Effect.logError(`unmapping ports that containers no longer need: ${result.failure.message}`)
  return false
})

const releaseAll = Effect.fnUntraced(function* (state: WatchState, actions: ReadonlyArray<ReleaseAction>) {
  if (!(yield* unmap(actions))) return false
  const names = actions.flatMap(({ key }) => state.observed.get(key)?.name ?? [])
  for (const action of actions) state.released(action)
  yield* logPorts(names, "released")
  return true
})

/** Returns whether all were mapped; `false` if one of them can't be mapped as requested, or if there is only one. */
const mapTogether = Effect.fnUntraced(function* (state: WatchState, actions: ReadonlyArray<MapAction>) {
  const [first] = actions
  if (first === undefined || actions.length === 1) return false
  const groups = actions.map(({ desired: { group }, tries: [ports = group.ports] }) => ({ ...group, ports }))
  const mapped = yield* Effect.option(Effect.scoped(calledAs(first.desired.owner, mapGroupsTogether(groups))))
  if (Option.isNone(mapped)) return false
  for (const [index, { desired }] of actions.entries()) state.mapped(desired, mapped.value[index] ?? [])
  return true
})

/** Returns the error of the last port that it tried. */
const mapAlone = Effect.fnUntraced(function* (state: WatchState, { desired, tries }: MapAction) {
  let failure: DriverError | undefined
  for (const ports of tries) {
    const mapped = yield* Effect.result(Effect.scoped(mapDesired(desired, ports)))
    if (Result.isFailure(mapped)) {
      failure = mapped.failure
      continue
    }
    state.mapped(desired, mapped.success)
    if (failure !== undefined) {
      const publish = desired.group.labels.get(publishLabel)
      yield* Effect.logWarning(
        `${desired.name}: got a different port than before for ${publish}: ${failure.message}`
      )
    }
    return undefined
  }
  return failure
})

/** A defect of the driver fails only the call that met it. */
const calledAs = <A, R>(owner: string, call: Effect.Effect<A, DriverError, R>) =>
  Effect.provideService(call, CurrentOwner, owner).pipe(
    Effect.catchDefect(
      (defect): Effect.Effect<never, DriverError> =>
        Effect.fail({ _tag: "Defect", message: `internal error: ${defect}` })
    )
  )

const logPorts = (names: ReadonlyArray<string>, what: string) =>
  Effect.forEach(
    Map.groupBy(names, (name) => name),
    ([name, { length }]) => Effect.logInfo(`${name}: ${length === 1 ? "1 port" : `${length} ports`} ${what}`),
    { discard: true }
  )

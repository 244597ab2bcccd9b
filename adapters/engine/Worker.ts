/**
 * The single fiber that reconciles: after each event of the Engine, at intervals, and after a failure with growing
 * delays.
 */
import { Cause, Clock, Effect, Option, Queue } from "effect"
import { Driver, type DriverError, ListedOwner } from "../../src/protocol/Driver.ts"
import { monotonicMillis } from "../node/monotonicMillis.ts"
import { applyDifference } from "./Apply.ts"
import { asksByLabel, type Desired, desiredByLabels, desiredBySubscription, together } from "./Desired.ts"
import { difference } from "./Difference.ts"
import type { Container, Engine, EngineError, EngineEvent } from "./Engine.ts"
import { makeImageLabels } from "./ImageLabels.ts"
import type { WatchState } from "./WatchState.ts"

/** `Resync` also lists the driver's mappings, which other callers may have changed. */
export type WorkerEvent = EngineEvent | { readonly _tag: "Resync" }

export interface WorkerOptions {
  readonly engine: Engine["Service"]
  readonly state: WatchState
  readonly events: Queue.Queue<WorkerEvent>
  readonly save: Effect.Effect<void>
  readonly trustImageLabels: boolean
  readonly onConnected: Effect.Effect<void>
}

const resyncMillis = 30_000
const firstRetryMillis = 1_000

/** Never ends. `exclusively` keeps a reconciliation from interleaving with other changes of the state. */
export const work = (
  options: WorkerOptions,
  exclusively: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<never, never, Driver> =>
  Effect.gen(function* () {
    const { engine, events, onConnected } = options
    const reconcile = reconciler(options)
    let dueMillis = (yield* monotonicMillis) + resyncMillis
    let failures = 0
    for (;;) {
      const waitMillis = Math.max(0, dueMillis - (yield* monotonicMillis))
      yield* Effect.timeoutOption(Queue.peek(events), waitMillis)
      // A restart sends some six events: the next reconciliation handles all that arrived during the current one.
      const batch = yield* Queue.clear(events)
      const connected = batch.some(({ _tag }) => _tag === "Connected")
      if (connected) yield* onConnected
      const nowMillis = yield* monotonicMillis
      for (const event of batch)
        if (event._tag === "Changed") options.state.signalled(event.id, event.action, nowMillis)
        else if (event._tag === "Connected") options.state.reconnected()
      const isDue = dueMillis <= (yield* monotonicMillis)
      const full = isDue || connected || batch.some(({ _tag }) => _tag === "Resync")
      const done = yield* exclusively(reconcile(full))
      failures = done ? 0 : failures + 1
      const pauseMillis = done ? resyncMillis : Math.min(firstRetryMillis * 2 ** (failures - 1), resyncMillis)
      if (full || !done) dueMillis = (yield* monotonicMillis) + pauseMillis
      // The Engine sends the event of a network before its lists show the change.
      for (const id of new Set(batch.flatMap(rewiredContainer)))
        yield* Effect.ignore(engine.settled(id)).pipe(
          Effect.andThen(Queue.offer(events, { _tag: "Changed", id, action: "settled" })),
          Effect.forkChild
        )
    }
  })

/** Returns whether all actions succeeded, apart from the problems that it reports. */
const reconciler = ({ engine, state, save, trustImageLabels }: WorkerOptions) => {
  const images = makeImageLabels(engine)

  const desiredNow = Effect.fnUntraced(function* (containers: ReadonlyArray<Container>) {
    const all: Array<Desired> = []
    for (const container of containers.filter(asksByLabel)) {
      const labels = trustImageLabels ? container.labels : yield* images.countedLabelsOf(container)
      if (labels !== undefined) all.push(desiredByLabels(container, labels, containers))
    }
    for (const each of state.subscriptions) all.push(desiredBySubscription(each, containers))
    return together(all)
  })

  const reconcile = Effect.fnUntraced(function* (full: boolean) {
    const containers = state.withStopping(yield* engine.containers, yield* monotonicMillis)
    const listed = full ? yield* listedOf(state.owners()) : undefined
    if (listed !== undefined) state.observe(listed)
    state.see(containers)
    images.forget(containers)
    const desired = yield* desiredNow(containers)
    const groups = state.undismissed(desired.groups)
    const applied = yield* applyDifference(state, difference(groups, state.observed, state.granted))
    const problems = [...desired.problems, ...applied.problems]
    for (const { text, waiting } of state.report(problems, yield* Clock.currentTimeMillis))
      yield* waiting ? Effect.logInfo(text) : Effect.logWarning(text)
    yield* save
    return applied.released
  })

  /** Neither a failure nor a defect ends the worker. */
  return (full: boolean): Effect.Effect<boolean, never, Driver> =>
    Effect.catchCause(reconcile(full), (cause) =>
      Effect.as(
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.logWarning(`reconciling the containers: ${failureText(cause)}`),
        false
      )
    )
}

/** Lists owner by owner, so that the driver reads no counters: those of the whole host may take a while. */
const listedOf = Effect.fnUntraced(function* (owners: ReadonlySet<string>) {
  const { listPorts } = yield* Driver
  if (listPorts === undefined) return undefined
  const all = yield* Effect.forEach(owners, (owner) =>
    Effect.map(Effect.provideService(listPorts, ListedOwner, owner), (listed) =>
      listed.filter((mapping) => mapping.owner === owner)
    )
  )
  return all.flat()
})

const rewiredContainer = (event: WorkerEvent): ReadonlyArray<string> =>
  event._tag === "Changed" && (event.action === "connect" || event.action === "disconnect") ? [event.id] : []

const failureText = (cause: Cause.Cause<EngineError | DriverError>): string => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error === undefined ? `internal error: ${Cause.pretty(cause).split("\n")[0]}` : error.message
}

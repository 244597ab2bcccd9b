/**
 * The single fiber that reconciles: after each event of the Engine or an interface, at intervals, and after a failure
 * with growing delays.
 */
import { Cause, Clock, Deferred, Effect, Option, Queue, Result } from "effect"
import type { InterfaceAddresses, InterfaceError, Interfaces } from "../../src/ports/InterfaceAddresses.ts"
import { Driver, type DriverError, ListedOwner } from "../../src/protocol/Driver.ts"
import type { Labels } from "../../src/protocol/PortBinding.ts"
import { interfaceOf } from "../../src/protocol/PublishSyntax.ts"
import { monotonicMillis } from "../node/monotonicMillis.ts"
import { applyDifference } from "./Apply.ts"
import { asksByLabel, desiredByLabels, desiredBySubscription, mayNameInterface, together } from "./Desired.ts"
import { difference } from "./Difference.ts"
import type { Container, Engine, EngineError } from "./Engine.ts"
import { makeImageLabels } from "./ImageLabels.ts"
import type { PortProbe } from "./PortProbe.ts"
import { type Candidate, mayAskToSleep } from "./Resting.ts"
import { SleepWorker } from "./SleepWorker.ts"
import { addressesIn, subscribedContainer } from "./Subscription.ts"
import type { SleepEvent, WatchEvent } from "./WatchEvents.ts"
import type { WatchRecord } from "./WatchRecord.ts"
import type { WatchState } from "./WatchState.ts"

export interface WorkerOptions {
  /** `undefined`: only what leads to addresses is followed, and what other processes follow is left alone. */
  readonly engine: Engine["Service"] | undefined
  readonly interfaces: InterfaceAddresses["Service"]
  /** Completed once an interface is named: from then on the events of interfaces are wanted. */
  readonly interfacesNamed: Deferred.Deferred<void>
  readonly state: WatchState
  readonly events: Queue.Queue<WatchEvent>
  readonly save: Effect.Effect<void>
  readonly record: WatchRecord["Service"]
  readonly accepts: PortProbe
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
    const { engine, events, onConnected, state } = options
    const offer = (event: SleepEvent) => void Queue.offerUnsafe(events, event)
    const sleep = engine && new SleepWorker({ ...options, engine, offer })
    if (sleep !== undefined) yield* forwardWaits(offer)
    const reconcile = reconciler(options, sleep)
    let dueMillis = (yield* monotonicMillis) + resyncMillis
    let failures = 0
    for (;;) {
      const beforeMillis = yield* monotonicMillis
      const sleepMillis = sleep?.dueMillis(beforeMillis) ?? Number.POSITIVE_INFINITY
      const waitMillis = Math.max(0, Math.min(dueMillis, sleepMillis) - beforeMillis)
      yield* Effect.timeoutOption(Queue.peek(events), waitMillis)
      // A restart sends some six events: the next reconciliation handles all that arrived during the current one.
      const batch = yield* Queue.clear(events)
      const connected = batch.some(({ _tag }) => _tag === "Connected")
      if (connected) yield* onConnected
      if (connected) sleep?.doubt()
      const nowMillis = yield* monotonicMillis
      for (const event of batch) state.take(event, nowMillis)
      yield* sleep?.act ?? Effect.void
      const isDue = dueMillis <= (yield* monotonicMillis)
      const full = isDue || connected || batch.some(({ _tag }) => _tag === "Resync")
      const done = yield* exclusively(reconcile(full))
      // An event that came meanwhile is taken first: it may be that what would be begun now has just been done.
      if ((yield* Queue.size(events)) === 0) yield* sleep?.act ?? Effect.void
      failures = done ? 0 : failures + 1
      const pauseMillis = done ? resyncMillis : Math.min(firstRetryMillis * 2 ** (failures - 1), resyncMillis)
      if (full || !done) dueMillis = (yield* monotonicMillis) + pauseMillis
      // The Engine sends the event of a network or a pause before its lists show the change.
      for (const id of new Set(batch.flatMap(unsettledContainer)))
        yield* Effect.ignore(engine?.settled(id) ?? Effect.void).pipe(
          Effect.andThen(Queue.offer(events, { _tag: "Changed", id, action: "settled" })),
          Effect.forkChild
        )
    }
  })

/** Returns whether all actions succeeded, apart from the problems that it reports. */
const reconciler = (options: WorkerOptions, sleep: SleepWorker | undefined) => {
  const { engine, state, save } = options
  const desiredNow = desiring(options, sleep)
  let hasLooked = false

  const reconcile = Effect.fnUntraced(function* (full: boolean) {
    // A process that ended during a call may have left mappings that are not followed.
    if (engine === undefined && hasLooked && state.isIdle()) return true
    const found = engine === undefined ? undefined : yield* Effect.result(engine.containers)
    const containers =
      found !== undefined && Result.isSuccess(found)
        ? state.withStopping(found.success, yield* monotonicMillis)
        : undefined
    if (containers !== undefined && sleep !== undefined) yield* sleep.verify
    const listed = full ? yield* listedOf(state.owners()) : undefined
    if (listed !== undefined) state.observe(listed)
    hasLooked ||= listed !== undefined
    if (containers !== undefined) state.see(containers)
    const desired = state.undismissed(yield* desiredNow(containers), containers !== undefined)
    const observed = containers === undefined ? state.observedAtAddresses : state.observed
    const applied = yield* applyDifference(state, difference(desired.groups, observed, state.granted))
    if (containers !== undefined && sleep !== undefined) yield* sleep.close
    const kept = containers === undefined ? state.problemsOfContainers : []
    const problems = [...kept, ...desired.problems, ...applied.problems]
    for (const { text, waiting } of state.report(problems, yield* Clock.currentTimeMillis))
      yield* waiting ? Effect.logInfo(text) : Effect.logWarning(text)
    yield* save
    if (found !== undefined) yield* Effect.fromResult(found)
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

/** What should be published; where the containers are unknown, what leads to addresses. */
const desiring = (
  { engine, interfaces, interfacesNamed, state, trustImageLabels }: WorkerOptions,
  sleep: SleepWorker | undefined
) => {
  const images = engine === undefined ? undefined : makeImageLabels(engine)

  const labelled = Effect.fnUntraced(function* (containers: ReadonlyArray<Container>) {
    const all: Array<readonly [container: Container, labels: Labels]> = []
    images?.forget(containers)
    for (const container of containers) {
      if (!asksByLabel(container) && !(mayAskToSleep(container) && state.sleepers.mayWake(container)))
        continue
      const labels =
        trustImageLabels || images === undefined ? container.labels : yield* images.countedLabelsOf(container)
      if (labels !== undefined) all.push([container, labels])
    }
    return all
  })

  return Effect.fnUntraced(function* (containers: ReadonlyArray<Container> | undefined) {
    const asking = yield* labelled(containers ?? [])
    const subscriptions = state.subscriptions.filter(
      ({ id }) => containers !== undefined || addressesIn(id) !== undefined
    )
    const isNamed =
      asking.some(([, labels]) => mayNameInterface(labels)) ||
      subscriptions.some(({ publish }) => interfaceOf(publish) !== undefined)
    if (isNamed) yield* Deferred.succeed(interfacesNamed, undefined)
    const addresses: Interfaces = isNamed ? yield* interfaces.current : new Map()
    const all = containers ?? []
    const around = (sleeps: boolean) => ({ all, interfaces: addresses, sleeps })
    const candidates = [
      ...asking.map(
        ([container, labels]): Candidate => ({
          container,
          labels,
          desired: (sleeps) => desiredByLabels(container, labels, around(sleeps))
        })
      ),
      ...subscriptions.map(
        (each): Candidate => ({
          container: addressesIn(each.id) === undefined ? subscribedContainer(each, all) : undefined,
          labels: new Map(Object.entries(each.labels)),
          desired: (sleeps) => desiredBySubscription(each, around(sleeps))
        })
      )
    ]
    const desired =
      sleep === undefined || containers === undefined
        ? together(candidates.map((each) => each.desired(false)))
        : sleep.desiredOf(candidates, containers, yield* monotonicMillis)
    state.usedInterfaces(addresses, isNamed ? desired : together([]))
    return desired
  })
}

/** Where clients wait, as long as the driver tells. */
const forwardWaits = (offer: (event: SleepEvent) => void) =>
  Effect.flatMap(Driver, ({ waits }) =>
    waits === undefined
      ? Effect.void
      : Effect.forkChild(Effect.forever(Effect.map(waits, (frontend) => offer({ _tag: "Waits", frontend }))))
  )

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

const unsettledContainer = (event: WatchEvent): ReadonlyArray<string> =>
  event._tag === "Changed" && beforeLists.has(event.action) ? [event.id] : []

const beforeLists = new Set(["connect", "disconnect", "pause", "unpause"])

const failureText = (cause: Cause.Cause<EngineError | InterfaceError | DriverError>): string => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error === undefined ? `internal error: ${Cause.pretty(cause).split("\n")[0]}` : error.message
}

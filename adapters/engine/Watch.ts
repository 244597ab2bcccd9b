/**
 * Publishes the ports that an Engine's containers request, and keeps them published. `Desired` and `Observed`
 * compute what should be and what is mapped, `Difference` the actions between them; `Worker` carries these out, and
 * `WatchState` holds the state of all of them.
 */
import { Effect, Option, Queue, Result, type Scope, Semaphore } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"
import { Engine } from "./Engine.ts"
import { listen } from "./Listen.ts"
import { findContainer } from "./Placement.ts"
import { listedProblem } from "./Problems.ts"
import { subscribe } from "./Subscribe.ts"
import { type RecordError, WatchRecord } from "./WatchRecord.ts"
import { WatchState } from "./WatchState.ts"
import { type WorkerEvent, work } from "./Worker.ts"

export interface WatchOptions {
  /** Whether labels of the image count as the container's own. */
  readonly trustImageLabels: boolean
  /** Runs after each connection to the Engine, which may have been restarted. */
  readonly onConnected?: Effect.Effect<void>
}

/**
 * Watches until the scope closes; all mappings stay published then. Returns the driver to serve instead of the one
 * below: it also lists requests that could not be published, follows containers, and notices what is unmapped.
 */
export const startWatch = Effect.fnUntraced(function* ({
  trustImageLabels,
  onConnected = Effect.void
}: WatchOptions): Effect.fn.Return<
  Driver["Service"],
  RecordError,
  Engine | Driver | WatchRecord | Scope.Scope
> {
  const engine = yield* Engine
  const base = yield* Driver
  const record = yield* WatchRecord
  const state = new WatchState(yield* record.load)
  const events = yield* Queue.unbounded<WorkerEvent>()
  const oneAtATime = (yield* Semaphore.make(1)).withPermits(1)

  const save = Effect.suspend(() => {
    const unsaved = state.takeUnsaved()
    return unsaved === undefined
      ? Effect.void
      : Effect.catch(record.save(unsaved), ({ message }) =>
          Effect.logError(`recording the subscriptions: ${message}`)
        )
  })
  const resync = Effect.andThen(Queue.offer(events, { _tag: "Resync" }), save)

  yield* Effect.forkScoped(listen(engine, (event) => Queue.offerUnsafe(events, event)))
  yield* Effect.forkScoped(work({ engine, state, events, save, trustImageLabels, onConnected }, oneAtATime))

  const { listPorts } = base
  return Driver.of({
    ...base,
    unmapPorts: (release) =>
      Effect.andThen(
        base.unmapPorts(release),
        Effect.suspend(() => (state.dismiss(release.bindings) ? resync : Effect.void))
      ),
    followContainer: (request) =>
      Effect.flatMap(engine.containers, (containers) => subscribe(state, request, containers, resync)).pipe(
        Effect.tap(save),
        Effect.provideService(Driver, base),
        oneAtATime
      ),
    ...(base.drain === undefined ? {} : { drain: drainByName(engine, base.drain) }),
    ...(listPorts === undefined
      ? {}
      : {
          listPorts: Effect.map(listPorts, (listed) => [
            ...listed,
            ...state.problems.map((problem) => listedProblem(problem, state.granted))
          ])
        })
  })
})

/** The Engine knows the names and addresses of all containers, also of those that other callers map. */
const drainByName =
  (engine: Engine["Service"], drain: NonNullable<Driver["Service"]["drain"]>): typeof drain =>
  (request) =>
    Effect.flatMap(Effect.option(engine.containers), (containers) => {
      const found = Result.getOrUndefined(
        findContainer(
          request.backend,
          Option.getOrElse(containers, () => [])
        )
      )
      if (found === undefined) return drain(request)
      const addresses = found.attachments.flatMap(({ v4, v6 }) => [v4 ?? [], v6 ?? []].flat())
      return drain({ ...request, addresses })
    })

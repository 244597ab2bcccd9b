/**
 * Publishes the ports that an Engine's containers request, and those that users want at an interface, and keeps them
 * published. `Desired` and `Observed` compute what should be and what is mapped, `Difference` the actions between them;
 * `Worker` carries these out, and `WatchState` holds the state of all of them.
 */
import { Deferred, Effect, Option, Queue, Result, type Scope, Semaphore, Stream } from "effect"
import { InterfaceAddresses, type Interfaces } from "../../src/ports/InterfaceAddresses.ts"
import { Driver, type FollowRequest, type ListedMapping } from "../../src/protocol/Driver.ts"
import { Engine } from "./Engine.ts"
import { listen } from "./Listen.ts"
import { findContainer } from "./Placement.ts"
import { acceptsTcp, type PortProbe } from "./PortProbe.ts"
import { listedProblem, withReasons } from "./Problems.ts"
import { subscribeToContainer, subscribeToInterface } from "./Subscribe.ts"
import type { WatchEvent } from "./WatchEvents.ts"
import { type RecordError, WatchRecord } from "./WatchRecord.ts"
import { WatchState } from "./WatchState.ts"
import { work } from "./Worker.ts"

export interface WatchOptions {
  /** Whether labels of the image count as the container's own. */
  readonly trustImageLabels: boolean
  /** Runs after each connection to the Engine, which may have been restarted. */
  readonly onConnected?: Effect.Effect<void>
  /** Whether a container that was just started takes connections; tries to connect by default. */
  readonly accepts?: PortProbe
}

/**
 * Watches until the scope closes; all mappings stay published then. Returns the driver to serve instead of the one
 * below: it also lists requests that could not be published, follows containers and interfaces, and notices what is
 * unmapped. Without an Engine it follows interfaces only.
 */
export const startWatch = Effect.fnUntraced(function* ({
  trustImageLabels,
  onConnected = Effect.void,
  accepts = acceptsTcp
}: WatchOptions): Effect.fn.Return<
  Driver["Service"],
  RecordError,
  InterfaceAddresses | Driver | WatchRecord | Scope.Scope
> {
  const engine = Option.getOrUndefined(yield* Effect.serviceOption(Engine))
  const interfaces = yield* InterfaceAddresses
  const base = yield* Driver
  const record = yield* WatchRecord
  const state = new WatchState(yield* record.load)
  const events = yield* Queue.unbounded<WatchEvent>()
  const oneAtATime = (yield* Semaphore.make(1)).withPermits(1)

  const save = savingOf(state, record)
  const trySave = Effect.catch(save, ({ message }) => Effect.logError(message))
  const resync = Queue.offer(events, { _tag: "Resync" })

  if (engine !== undefined)
    yield* Effect.forkScoped(listen(engine, (event) => Queue.offerUnsafe(events, event)))
  const interfacesNamed = yield* Deferred.make<void>()
  const onInterfaces = (now: Interfaces) =>
    state.hasOutdated(now) ? Queue.offer(events, { _tag: "Interfaces" }) : Effect.void
  yield* Effect.forkScoped(
    Effect.andThen(Deferred.await(interfacesNamed), listenToInterfaces(interfaces, onInterfaces))
  )
  // The first event of an Engine is that it is connected, which may be long after the start.
  if (engine === undefined || !state.isIdle()) yield* resync
  const asked = { save: trySave, record, accepts, trustImageLabels, onConnected }
  yield* Effect.forkScoped(work({ engine, interfaces, interfacesNamed, state, events, ...asked }, oneAtATime))

  const { listPorts } = base
  const subscribing = { state, interfaces, onUndone: Effect.andThen(resync, trySave) }
  const following = <A, E, R>(
    { publish }: Pick<FollowRequest, "publish">,
    subscribed: Effect.Effect<A, E, R>
  ) => {
    const notice = publish.some(({ interfaceName }) => interfaceName !== undefined)
      ? Queue.offer(events, { _tag: "Interfaces" })
      : Effect.void
    return subscribed.pipe(
      Effect.tap(Effect.andThen(notice, save)),
      Effect.provideService(Driver, base),
      oneAtATime
    )
  }
  return Driver.of({
    ...base,
    unmapPorts: (release) =>
      Effect.andThen(
        Effect.suspend(() => base.unmapPorts(state.releaseOf(release))),
        Effect.suspend(() => (state.dismiss(release) ? Effect.andThen(resync, save) : Effect.void))
      ),
    followInterface: (request) => following(request, subscribeToInterface(subscribing, request)),
    ...(engine === undefined
      ? {}
      : {
          followContainer: (request) =>
            following(
              request,
              Effect.flatMap(engine.containers, (containers) =>
                subscribeToContainer(subscribing, request, containers)
              )
            ),
          ...(base.drain === undefined ? {} : { drain: drainByName(engine, base.drain, resync) })
        }),
    ...(listPorts === undefined ? {} : { listPorts: Effect.map(listPorts, listing(state)) })
  })
})

/** What can't be saved is saved with the next change, at the latest with the next reconciliation. */
const savingOf = (state: WatchState, record: WatchRecord["Service"]) =>
  Effect.flatMap(record.isLost, (isLost) => {
    const unsaved = state.takeUnsaved(isLost)
    return unsaved === undefined
      ? Effect.void
      : Effect.tapError(record.save(unsaved), () => Effect.sync(() => state.notSaved()))
  })

/** What the driver lists, with what it does not know. */
const listing =
  (state: WatchState) =>
  (listed: ReadonlyArray<ListedMapping>): ReadonlyArray<ListedMapping> => [
    ...withReasons(listed, state.sleepers),
    ...state.problems.map((problem) => listedProblem(problem, state.granted))
  ]

/** Never ends. A failure, which means that this process lacks descriptors or memory, is logged once. */
const listenToInterfaces = (
  { changes }: InterfaceAddresses["Service"],
  onChange: (now: Interfaces) => Effect.Effect<unknown>
): Effect.Effect<never> =>
  Effect.suspend(() => {
    let logged: string | undefined
    const listening = Stream.runForEach(changes, (now) => {
      logged = undefined
      return onChange(now)
    })
    return listening.pipe(
      Effect.catch(({ message }) => {
        const log = message === logged ? Effect.void : Effect.logWarning(`${message}; retrying`)
        logged = message
        return log
      }),
      Effect.andThen(Effect.sleep("1 second")),
      Effect.forever
    )
  })

/** The Engine knows the names and addresses of all containers, also of those that other callers map. */
const drainByName =
  (
    engine: Engine["Service"],
    drain: NonNullable<Driver["Service"]["drain"]>,
    onDrained: Effect.Effect<unknown>
  ): typeof drain =>
  (request) =>
    Effect.option(engine.containers).pipe(
      Effect.flatMap((containers) => {
        const found = Result.getOrUndefined(
          findContainer(
            request.backend,
            Option.getOrElse(containers, () => [])
          )
        )
        if (found === undefined) return drain(request)
        const addresses = found.attachments.flatMap(({ v4, v6 }) => [v4 ?? [], v6 ?? []].flat())
        return drain({ ...request, container: found.id, addresses })
      }),
      Effect.tap(onDrained)
    )

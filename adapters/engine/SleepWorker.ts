/**
 * Carries out what containers that sleep need: starts and stops them, waits for their ports, looks at their
 * connections. Each of these takes its time beside the worker, which gets the outcome as an event.
 */
import { Duration, Effect, Option, Result } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"
import { endpointText } from "../../src/protocol/PortBinding.ts"
import { monotonicMillis } from "../node/monotonicMillis.ts"
import type { Desired } from "./Desired.ts"
import type { Container, Engine, EngineError } from "./Engine.ts"
import type { PortProbe } from "./PortProbe.ts"
import { type AwaitedPort, type Candidate, desiredOf } from "./Resting.ts"
import { dueMillis, isLate, lookMillis, toStart } from "./Sleeper.ts"
import type { SleepingContainer } from "./Sleepers.ts"
import type { SleepEvent } from "./WatchEvents.ts"
import type { RecordError, WatchRecord } from "./WatchRecord.ts"
import type { WatchState } from "./WatchState.ts"

export interface SleepOptions {
  readonly engine: Engine["Service"]
  readonly state: WatchState
  readonly record: WatchRecord["Service"]
  readonly accepts: PortProbe
  readonly offer: (event: SleepEvent) => void
}

/** A container that just started is tried often: its clients wait. */
const tries = { firstMillis: 25, quick: 200, thenMillis: 500 }

export class SleepWorker {
  readonly #options: SleepOptions
  /** What is in progress. */
  readonly #busy = new Set<string>()
  /** The ports to wait for, by the keys of their groups. */
  #awaited: ReadonlyMap<string, AwaitedPort> = new Map()
  /** Whether events were missed since the record was last compared with the Engine's containers. */
  #doubts = true
  /** What was last logged about a container. */
  readonly #reported = new Map<string, string>()

  constructor(options: SleepOptions) {
    this.#options = options
  }

  doubt(): void {
    this.#doubts = true
  }

  /**
   * Reads the record again, to which the process before us may have added in a takeover. Forgets what is recorded of
   * containers that were started since: a person may have stopped them then.
   */
  readonly verify: Effect.Effect<void, EngineError> = Effect.gen({ self: this }, function* () {
    if (!this.#doubts) return
    const { engine, record, state } = this.#options
    const read = Effect.map(record.load, ({ slept }) => state.sleepers.learn(slept))
    yield* Effect.catch(read, ({ message }) =>
      Effect.logWarning(`reading which containers sleep: ${message}`)
    )
    for (const [id, run] of state.sleepers.slept)
      if ((yield* engine.runOf(id)) !== run) state.sleepers.forget(id)
    this.#doubts = false
  })

  /** What these request now; from now on waits for the ports of those that were just started. */
  desiredOf(
    candidates: ReadonlyArray<Candidate>,
    containers: ReadonlyArray<Container>,
    nowMillis: number
  ): Desired {
    const now = desiredOf(this.#options.state, candidates, containers, nowMillis)
    const { awaited, desired, hasDropped } = now
    this.#doubts ||= hasDropped
    const before = this.#awaited
    const known = (port: AwaitedPort) => {
      const same = before.get(port.key)
      return same !== undefined && textOf(same) === textOf(port) ? same : port
    }
    this.#awaited = new Map(awaited.map((port) => [port.key, known(port)]))
    return desired
  }

  /** Begins what is due. */
  readonly act: Effect.Effect<void, never, Driver> = Effect.gen({ self: this }, function* () {
    const { state } = this.#options
    const { sleepers } = state
    const nowMillis = yield* monotonicMillis
    const all = state.fellows()
    state.takeWaited(all, nowMillis)
    for (const fellows of all.values()) {
      const current = fellows.flatMap(({ id }) => sleepers.get(id) ?? [])
      for (const sleeper of toStart(current, nowMillis)) yield* this.#begin(sleeper, nowMillis)
    }
    for (const sleeper of sleepers.all) {
      const { id, phase } = sleeper
      if (isLate(sleeper, nowMillis)) sleepers.late(id)
      if (phase === "stopping") yield* this.#once(`stop ${id}`, this.#stop(sleeper))
      const due = lookMillis(sleeper)
      if (due !== undefined && due <= nowMillis) yield* this.#once(`look ${id}`, this.#look(sleeper))
    }
    for (const id of sleepers.takeEnded()) yield* this.#once(`remember ${id}`, this.#remember(id))
    for (const port of this.#awaited.values()) yield* this.#once(textOf(port), this.#waitFor(port))
    yield* this.#report(nowMillis)
  })

  /** When to call `act` again, unless an event comes before. */
  dueMillis(nowMillis: number): number {
    const resting = this.#options.state.sleepers.all.filter(({ id }) => !this.#busy.has(`look ${id}`))
    return Math.min(...resting.map((sleeper) => dueMillis(sleeper, nowMillis)))
  }

  /** Looks once more at those whose ports were taken from them. */
  readonly close: Effect.Effect<void, never, Driver> = Effect.gen({ self: this }, function* () {
    const { state } = this.#options
    const nowMillis = yield* monotonicMillis
    for (const sleeper of state.sleepers.all) {
      const { id, phase, ports } = sleeper
      if (phase !== "closing") continue
      if ([...ports.keys()].every((key) => state.observed.get(key)?.idle !== false))
        yield* this.#once(`look ${id}`, this.#look(sleeper))
      else state.sleepers.stays(id, "it is not stopped, since its ports could not be held", nowMillis)
    }
  })

  /** In the background, unless the same is in progress. */
  #once<R>(what: string, work: Effect.Effect<unknown, never, R>): Effect.Effect<unknown, never, R> {
    if (this.#busy.has(what)) return Effect.void
    this.#busy.add(what)
    const done = Effect.sync(() => this.#busy.delete(what))
    return Effect.forkChild(Effect.ensuring(work, done))
  }

  #begin({ id, name }: SleepingContainer, nowMillis: number): Effect.Effect<unknown> {
    const { engine, offer, state } = this.#options
    state.sleepers.starting(id, nowMillis)
    const start = Effect.gen(function* () {
      yield* Effect.logInfo(`${name}: starting, since a client waits`)
      const result = yield* Effect.result(engine.start(id))
      if (Result.isSuccess(result)) yield* Effect.logInfo(`${name}: started`)
      offer({ _tag: "Started", id, why: failureOf(result) })
    })
    return this.#once(`start ${id}`, start)
  }

  #stop({ id, name, rest }: SleepingContainer): Effect.Effect<void> {
    const { offer, state } = this.#options
    const time = Duration.format(Duration.millis(rest.sleepMillis ?? 0))
    return Effect.gen({ self: this }, function* () {
      yield* Effect.logInfo(`${name}: stopping, since it has been unused for ${time}`)
      const result = yield* Effect.result(this.#stopRecorded({ id, name }))
      if (Result.isFailure(result)) state.sleepers.forget(id)
      offer({ _tag: "Stopped", id, why: failureOf(result) })
    })
  }

  /** Recorded first: after a kill in between the container is one that we were about to stop. */
  #stopRecorded({
    id,
    name
  }: Pick<SleepingContainer, "id" | "name">): Effect.Effect<void, EngineError | RecordError> {
    const { engine, record, state } = this.#options
    return Effect.gen(function* () {
      const run = yield* engine.runOf(id)
      if (run === undefined) return
      state.sleepers.sleepsAfter(id, run)
      yield* record.save(state.recorded())
      yield* engine.stop(id)
      yield* Effect.logInfo(`${name}: stopped`)
    })
  }

  /** It is asleep after this run as it was before. */
  #remember(id: string): Effect.Effect<void> {
    const { engine, record, state } = this.#options
    return Effect.ignore(
      Effect.flatMap(engine.runOf(id), (run) => {
        if (run !== undefined) state.sleepers.sleepsAfter(id, run)
        return record.save(state.recorded())
      })
    )
  }

  #look(sleeper: SleepingContainer): Effect.Effect<void, never, Driver> {
    const { offer, state } = this.#options
    return Effect.gen(function* () {
      const { connectionsOf } = yield* Driver
      const counted = yield* Effect.option(
        Effect.tapError(
          connectionsOf?.(state.bindingsOf(sleeper)) ?? Effect.succeed(undefined),
          ({ message }) => Effect.logDebug(`counting the connections of ${sleeper.name}: ${message}`)
        )
      )
      offer({ _tag: "Looked", id: sleeper.id, connections: Option.getOrUndefined(counted) })
    })
  }

  #waitFor(port: AwaitedPort): Effect.Effect<void> {
    const { accepts, offer, state } = this.#options
    const { id, key, endpoint } = port
    return Effect.gen({ self: this }, function* () {
      for (let tried = 0; this.#awaited.get(key) === port && state.sleepers.isClosed(id, key); tried++) {
        if (yield* accepts(endpoint)) return offer({ _tag: "Opened", id, key })
        yield* Effect.sleep(tried < tries.quick ? tries.firstMillis : tries.thenMillis)
      }
    })
  }

  /** Logs why containers don't wake or are not stopped, once each time. */
  #report(nowMillis: number): Effect.Effect<void> {
    const { sleepers } = this.#options.state
    return Effect.gen({ self: this }, function* () {
      for (const id of this.#reported.keys())
        if (sleepers.get(id)?.why === undefined) this.#reported.delete(id)
      for (const { id, name, why, failures, retryMillis } of sleepers.all) {
        const text = `${failures} ${why}`
        if (why === undefined || this.#reported.get(id) === text) continue
        this.#reported.set(id, text)
        const pause = Math.ceil((retryMillis - nowMillis) / 1000)
        yield* Effect.logWarning(`${name}: ${why}${pause > 0 ? `; a client may wake it in ${pause} s` : ""}`)
      }
    })
  }
}

const textOf = ({ key, endpoint }: AwaitedPort): string => `${key} ${endpointText(endpoint)}`

const failureOf = (result: Result.Result<unknown, { readonly message: string }>): string | undefined =>
  Result.isFailure(result) ? result.failure.message : undefined

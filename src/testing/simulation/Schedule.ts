/**
 * Processes whose fibers run when the simulation runs them, on one clock that the simulation advances. Whose turn it is
 * the seed draws; each process takes its own tasks in order. A process can be killed or frozen between any two tasks.
 */
import {
  type Cause,
  Clock,
  Context,
  Duration,
  Effect,
  type Fiber,
  Queue,
  Random as Randoms,
  References,
  Scheduler,
  type Scope,
  Stream
} from "effect"
import type { Random } from "../Random.ts"

interface Sleeper {
  readonly atMillis: number
  readonly process: Process
  /** `undefined` once it is not waited for any more. */
  wake: (() => void) | undefined
}

/** More tasks than that without the clock moving are a loop that never ends. */
const mostTasks = 200_000

export class Schedule {
  readonly random: Random
  nowMillis = 0
  readonly #ready: Array<Process> = []
  /** By their time. */
  readonly #sleepers: Array<Sleeper> = []

  constructor(random: Random) {
    this.random = random
  }

  /** Runs everything that can run. */
  flush(): void {
    for (let tasks = 0; this.#ready.length > 0; tasks++) {
      if (tasks > mostTasks) throw new Error("the simulation runs in circles: no task waits for the clock")
      const index = this.random.below(this.#ready.length)
      const process = this.#ready[index] as Process
      const task = process.tasks.shift()
      if (process.tasks.length === 0) this.#ready.splice(index, 1)
      task?.()
    }
  }

  /** Advances the clock, waking each sleeper at its time and letting everything run before the next. */
  advance(millis: number): void {
    const end = this.nowMillis + millis
    while (true) {
      const [next] = this.#sleepers
      if (next === undefined || next.atMillis > end) break
      this.#sleepers.shift()
      const { wake } = next
      if (wake === undefined) continue
      this.nowMillis = next.atMillis
      next.process.post(wake)
      this.flush()
    }
    this.nowMillis = end
  }

  sleep(process: Process, millis: number, wake: () => void): Sleeper {
    const sleeper: Sleeper = { atMillis: this.nowMillis + millis, process, wake }
    let low = 0
    let high = this.#sleepers.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#sleepers[middle] as Sleeper).atMillis <= sleeper.atMillis) low = middle + 1
      else high = middle
    }
    this.#sleepers.splice(low, 0, sleeper)
    return sleeper
  }

  ready(process: Process): void {
    this.#ready.push(process)
  }

  unready(process: Process): void {
    const index = this.#ready.indexOf(process)
    if (index !== -1) this.#ready.splice(index, 1)
  }
}

/** Timers fire as late as on a busy machine, so that many of them fire at once. */
const granularityMillis = 50

export class Process {
  readonly tasks: Array<() => void> = []
  /** What the wall clock is ahead of the world's, and the monotonic clock behind it. */
  readonly ahead = { millis: 0 }
  readonly suspended = { millis: 0 }
  state: "running" | "frozen" | "dead" = "running"
  readonly #schedule: Schedule
  readonly #context: Context.Context<never>
  /** What others do for it, as long as it lives. */
  readonly #remote = new Set<Fiber.Fiber<unknown, unknown>>()

  constructor(schedule: Schedule, services: Context.Context<never> = Context.empty()) {
    this.#schedule = schedule
    this.#context = Context.mergeAll(
      Context.make(Scheduler.Scheduler, this.#scheduler()),
      Context.make(Clock.Clock, this.#clock()),
      Context.make(Randoms.Random, {
        nextDoubleUnsafe: () => schedule.random.next(),
        nextIntUnsafe: () => schedule.random.below(2 ** 52)
      }),
      Context.make(References.MinimumLogLevel, "None"),
      services
    )
  }

  run<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.#context)(effect)
  }

  /** Runs an effect in another process, and brings its result home, unless this one is dead by then. */
  ask<A, E>(other: Process, effect: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.callback((resume) => {
      const fiber = this.#lend(other.run(effect))
      fiber.addObserver((exit) => this.post(() => resume(exit)))
      return Effect.sync(() => fiber.interruptUnsafe())
    })
  }

  /** Brings a stream home in the same way. */
  follow<A, E>(
    other: Process,
    stream: Stream.Stream<A, E>
  ): Effect.Effect<Stream.Stream<A, E>, never, Scope.Scope> {
    return Effect.gen({ self: this }, function* () {
      const queue = yield* Queue.unbounded<A, E | Cause.Done>()
      const passing = Stream.runForEach(stream, (item) =>
        Effect.sync(() => this.post(() => Queue.offerUnsafe(queue, item)))
      )
      const fiber = this.#lend(other.run(passing))
      fiber.addObserver((exit) =>
        this.post(() =>
          exit._tag === "Failure" ? Queue.failCauseUnsafe(queue, exit.cause) : Queue.endUnsafe(queue)
        )
      )
      yield* Effect.addFinalizer(() => Effect.sync(() => fiber.interruptUnsafe()))
      return Stream.fromQueue(queue) as Stream.Stream<A, E>
    })
  }

  /** A fiber of another process that ends with this one. */
  #lend<A, E>(fiber: Fiber.Fiber<A, E>): Fiber.Fiber<A, E> {
    this.#remote.add(fiber)
    fiber.addObserver(() => this.#remote.delete(fiber))
    return fiber
  }

  post(task: () => void): void {
    if (this.state === "dead") return
    this.tasks.push(task)
    if (this.state === "running" && this.tasks.length === 1) this.#schedule.ready(this)
  }

  freeze(): void {
    if (this.state !== "running") return
    this.state = "frozen"
    this.#schedule.unready(this)
  }

  thaw(): void {
    if (this.state !== "frozen") return
    this.state = "running"
    if (this.tasks.length > 0) this.#schedule.ready(this)
  }

  kill(): void {
    this.state = "dead"
    this.#schedule.unready(this)
    this.tasks.length = 0
    for (const fiber of this.#remote) fiber.interruptUnsafe()
  }

  /** Continues with the next task of this process. */
  readonly pause: Effect.Effect<void> = Effect.callback((resume) => this.post(() => resume(Effect.void)))

  #scheduler(): Scheduler.Scheduler {
    return {
      executionMode: "sync",
      // A fiber runs until it waits for something.
      shouldYield: () => false,
      makeDispatcher: () => ({
        scheduleTask: (task) => this.post(task),
        flush: () => this.#schedule.flush()
      })
    }
  }

  #clock(): Clock.Clock {
    const schedule = this.#schedule
    const nowMillis = () => schedule.nowMillis + this.ahead.millis
    const monotonicNanos = () => BigInt(Math.floor(schedule.nowMillis - this.suspended.millis)) * 1_000_000n
    return {
      currentTimeMillisUnsafe: nowMillis,
      currentTimeMillis: Effect.sync(nowMillis),
      currentTimeNanosUnsafe: () => BigInt(Math.floor(nowMillis())) * 1_000_000n,
      currentTimeNanos: Effect.sync(() => BigInt(Math.floor(nowMillis())) * 1_000_000n),
      monotonicTimeNanosUnsafe: monotonicNanos,
      monotonicTimeNanos: Effect.sync(monotonicNanos),
      sleep: (duration) =>
        Effect.callback((resume) => {
          const millis =
            Math.max(0, Math.ceil(Duration.toMillis(duration) / granularityMillis)) * granularityMillis
          const sleeper = schedule.sleep(this, millis, () => resume(Effect.void))
          return Effect.sync(() => {
            sleeper.wake = undefined
          })
        })
    }
  }
}

/**
 * Fibers that run only when the harness runs them, on a clock that only the harness advances: one first-in,
 * first-out queue, so that the same program takes the same turns on every machine.
 */
import { type Clock, Duration, Effect, References, type Scheduler } from "effect"

export class Turns implements Scheduler.Scheduler {
  readonly executionMode = "sync"
  readonly #queue: Array<() => void> = []
  #next = 0

  /** A fiber runs until it waits for something: it yields only at the harness's own points. */
  shouldYield(): boolean {
    return false
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return { scheduleTask: (task) => void this.#queue.push(task), flush: () => this.flush() }
  }

  /** Runs everything that can run. */
  flush(): void {
    while (this.#next < this.#queue.length) {
      const task = this.#queue[this.#next++]
      if (this.#next > 1024) {
        this.#queue.splice(0, this.#next)
        this.#next = 0
      }
      task?.()
    }
    this.#queue.length = 0
    this.#next = 0
  }
}

/** A timer fires as late as on a busy machine: stopping at every few moments would cost the most time. */
const granularityMillis = 1000

/** A clock that starts at the Unix epoch. */
export class StandingClock implements Clock.Clock {
  #nowMillis = 0
  readonly #sleepers: Array<{ readonly atMillis: number; readonly wake: () => void }> = []
  readonly #turns: Turns

  constructor(turns: Turns) {
    this.#turns = turns
  }

  readonly currentTimeMillis = Effect.sync(() => this.#nowMillis)
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = this.currentTimeNanos

  currentTimeMillisUnsafe(): number {
    return this.#nowMillis
  }

  currentTimeNanosUnsafe(): bigint {
    return BigInt(this.#nowMillis) * 1_000_000n
  }

  monotonicTimeNanosUnsafe(): bigint {
    return this.currentTimeNanosUnsafe()
  }

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const sleeper = {
        atMillis:
          Math.ceil((this.#nowMillis + Duration.toMillis(duration)) / granularityMillis) * granularityMillis,
        wake: () => resume(Effect.void)
      }
      this.#sleepers.push(sleeper)
      return Effect.sync(() => this.#forget(sleeper))
    })
  }

  /** Advances the clock, waking each sleeper at its time and letting everything run before the next. */
  advance(millis: number): void {
    const end = this.#nowMillis + millis
    for (;;) {
      const due = this.#sleepers
        .filter(({ atMillis }) => atMillis <= end)
        .sort((a, b) => a.atMillis - b.atMillis)[0]
      if (due === undefined) break
      this.#nowMillis = due.atMillis
      this.#forget(due)
      due.wake()
      this.#turns.flush()
    }
    this.#nowMillis = end
  }

  /** Drops all sleepers without waking them: their process is gone. */
  forgetAll(): void {
    this.#sleepers.length = 0
  }

  #forget(sleeper: { readonly atMillis: number; readonly wake: () => void }): void {
    const index = this.#sleepers.indexOf(sleeper)
    if (index !== -1) this.#sleepers.splice(index, 1)
  }
}

/** Logs nothing: the mapper's log is not part of its answers. */
export const quiet = Effect.provideService(References.MinimumLogLevel, "None")

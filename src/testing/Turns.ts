/**
 * Fibers that run when told to, on a clock that stands still until told otherwise: one queue for all of them, first come
 * first served, so that the same program takes the same turns on every machine.
 */
import { type Clock, Duration, Effect, References, type Scheduler } from "effect"

export class Turns implements Scheduler.Scheduler {
  readonly executionMode = "sync"
  readonly #queue: Array<() => void> = []
  #next = 0

  /** A fiber runs until it waits for something: turns are given at the harness's own points only. */
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

/** What is to happen after a time happens so late as on a busy machine: looks at every few moments would cost the most. */
const granularityMillis = 1000

/** A clock at the Unix epoch. */
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

  /** Moves on, waking each sleeper at its time and letting everything run before the next. */
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

  /** Whoever sleeps now never wakes: their process is gone. */
  forgetAll(): void {
    this.#sleepers.length = 0
  }

  #forget(sleeper: { readonly atMillis: number; readonly wake: () => void }): void {
    const index = this.#sleepers.indexOf(sleeper)
    if (index !== -1) this.#sleepers.splice(index, 1)
  }
}

/** Logs nothing: what a mapper tells is not what it answers. */
export const quiet = Effect.provideService(References.MinimumLogLevel, "None")

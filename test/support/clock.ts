import { Clock, Effect } from "effect"

/** Runs it at a time of day that stands still, as after the clock was set back; intervals go on. */
export const atOneTimeOfDay = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Clock.clockWith((clock) =>
    Effect.provideService(effect, Clock.Clock, {
      currentTimeMillis: Effect.succeed(0),
      currentTimeMillisUnsafe: () => 0,
      currentTimeNanos: Effect.succeed(0n),
      currentTimeNanosUnsafe: () => 0n,
      monotonicTimeNanos: clock.monotonicTimeNanos,
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      sleep: (duration) => clock.sleep(duration)
    })
  )

import { Clock, Effect } from "effect"

/** For intervals and deadlines: unlike the time of day, it never jumps. */
export const monotonicMillis: Effect.Effect<number> = Effect.map(
  Clock.monotonicTimeNanos,
  (nanos) => Number(nanos) / 1e6
)

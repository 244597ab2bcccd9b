/**
 * How long a lease surely lives. Counted from the moment before its renewal was sent: etcd counts from when it read that,
 * and longer after a change of its leader, never shorter.
 */
import { Clock, Effect } from "effect"

/**
 * Until when, by two clocks. The monotonic one stands still while the machine is suspended, and the time of day can be set
 * back; a lease surely lives while both say so.
 */
export interface LeaseSpan {
  readonly monotonicNanos: bigint
  readonly epochMillis: number
}

/** A tenth of the TTL is for clocks that run at different speeds. */
export const startSpan = (ttlMillis: number): Effect.Effect<LeaseSpan> =>
  Effect.map(Effect.all([Clock.monotonicTimeNanos, Clock.currentTimeMillis]), ([nanos, millis]) => ({
    monotonicNanos: nanos + BigInt(Math.floor(ttlMillis * 0.9)) * 1_000_000n,
    epochMillis: millis + ttlMillis * 0.9
  }))

/** How long it surely lives on, in milliseconds; 0 where it may have ended. */
export const sureMillis = (span: LeaseSpan): Effect.Effect<number> =>
  Clock.clockWith((clock) => Effect.succeed(sureMillisBy(clock, span)))

/** The same, by clocks that the caller has at hand. */
export const sureMillisBy = (clock: Clock.Clock, { monotonicNanos, epochMillis }: LeaseSpan): number => {
  const monotonic = Number(monotonicNanos - clock.monotonicTimeNanosUnsafe()) / 1e6
  return Math.max(0, Math.min(monotonic, epochMillis - clock.currentTimeMillisUnsafe()))
}

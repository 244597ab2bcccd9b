import { assert, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { startSpan, sureMillis } from "../../src/cluster/LeaseSpan.ts"

/** Clocks that show these milliseconds: since the machine's start without its suspends, and of the day. */
const at = (monotonic: number, day: number): Clock.Clock =>
  Object.assign(Object.create(null), {
    monotonicTimeNanos: Effect.succeed(BigInt(monotonic) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => BigInt(monotonic) * 1_000_000n,
    currentTimeMillis: Effect.succeed(day),
    currentTimeMillisUnsafe: () => day
  })

it.each([
  ["nine tenths of the TTL at first", 0, 0, 27_000],
  ["what is left of that", 20_000, 20_000, 7_000],
  ["no longer than that", 27_000, 27_000, 0],
  ["never less than nothing", 90_000, 90_000, 0],
  ["nothing after a suspend, in which the monotonic clock stood still", 1_000, 3_600_000, 0],
  ["nothing after the time of day was set forward", 1_000, 31_000, 0],
  ["no longer where the time of day was set back", 20_000, -3_600_000, 7_000],
  ["nothing after both", 30_000, -3_600_000, 0]
])("a lease surely lives for %s", (_, monotonic, day, expected) => {
  const left = Effect.gen(function* () {
    const span = yield* Effect.provideService(startSpan(30_000), Clock.Clock, at(5_000, 1e12))
    return yield* Effect.provideService(sureMillis(span), Clock.Clock, at(5_000 + monotonic, 1e12 + day))
  })
  assert.strictEqual(Effect.runSync(left), expected)
})

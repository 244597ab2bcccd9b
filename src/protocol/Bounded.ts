/**
 * A bound on how long an effect may take, as `Effect.timeoutOrElse` has it, made for calls that mostly end at once: an
 * effect that ends without waiting costs one fiber and no timer.
 */
import { type Duration, Effect, Fiber } from "effect"

/**
 * Runs `self` in a fiber of its own, interruptible whatever the surroundings are. Past the bound, or interrupted, it
 * interrupts `self` and waits for its end; past the bound it then goes on with `late`, whatever that end was.
 */
export const bounded = <A, E, R, E2>(
  self: Effect.Effect<A, E, R>,
  bound: Duration.Duration,
  late: () => Effect.Effect<never, E2>
): Effect.Effect<A, E | E2, R> =>
  Effect.withFiber<A, E | E2, R>((caller) =>
    // Within one operation, so that no interruption comes between the start of the fiber and its being watched.
    Effect.callback((resume) => {
      const run = Effect.runForkWith(caller.context)
      const called = run(self as Effect.Effect<A, E>)
      const ended = called.pollUnsafe()
      if (ended !== undefined) return resume(ended)
      const timer = run(Effect.sleep(bound))
      called.addObserver((exit) => {
        resume(exit)
        timer.interruptUnsafe(caller.id)
      })
      timer.addObserver(() =>
        resume(Effect.andThen(Effect.uninterruptible(Fiber.interrupt(called)), Effect.suspend(late)))
      )
      return Fiber.interruptAll([called, timer])
    })
  )

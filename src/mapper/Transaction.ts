/** Steps that are undone in reverse when a later one fails or is interrupted. */
import { Effect, Exit, References } from "effect"

/** What `Effect.uninterruptibleMask` gives: makes an effect as interruptible as the surroundings were. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Runs one step, which may be interrupted, and remembers how to undo it; a step is undone only if it succeeded. An undoing
 * can't fail: what it can't do it tells.
 */
export type Step = <A, E, R>(
  step: Effect.Effect<A, E, R>,
  undo: (a: A) => Effect.Effect<void>
) => Effect.Effect<A, E, R>

/**
 * To be run uninterruptibly, with the mask's `restore`: the body is interrupted within its steps only. A step must be
 * atomic: interrupted, it changed nothing. The scheduler takes no turn in between, where an interruption could come
 * after a step's last act and before it is remembered.
 */
export const transaction = <A, E, R>(
  restore: Restore,
  body: (step: Step) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const undoings: Array<() => Effect.Effect<void>> = []
    const step: Step = (effect, undo) =>
      Effect.map(restore(effect), (a) => {
        undoings.push(() => undo(a))
        return a
      })
    const undone = Effect.onExit(body(step), (exit) =>
      Exit.isSuccess(exit)
        ? Effect.void
        : Effect.forEach(undoings.reverse(), (undo) => undo(), { discard: true })
    )
    // Whoever runs the whole call without turns spares each transaction a change of its surroundings.
    return fiber.getRef(References.PreventSchedulerYield)
      ? undone
      : Effect.provideService(undone, References.PreventSchedulerYield, true)
  })

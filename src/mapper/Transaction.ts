/** Steps that are undone in reverse when a later one fails. */
import { Effect, Exit } from "effect"

/**
 * Runs one step, and remembers how to undo it; a step is undone only if it succeeded. An undoing can't fail: what it can't
 * do it tells.
 */
export type Step = <A, E, R>(
  step: Effect.Effect<A, E, R>,
  undo: (a: A) => Effect.Effect<void>
) => Effect.Effect<A, E, R>

/**
 * Is not interrupted: a step that were could have done all it does, and nobody would remember to undo it. Whoever
 * interrupts it has it done, and undoes the whole.
 */
export const transaction = <A, E, R>(body: (step: Step) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptible(
    Effect.suspend(() => {
      const undoings: Array<() => Effect.Effect<void>> = []
      const step: Step = (effect, undo) =>
        Effect.map(effect, (a) => {
          undoings.push(() => undo(a))
          return a
        })
      return Effect.onExit(body(step), (exit) =>
        Exit.isSuccess(exit)
          ? Effect.void
          : Effect.forEach(undoings.reverse(), (undo) => undo(), { discard: true })
      )
    })
  )

/** An undoing can't fail, so what it could not do is told. */
export const told = <E extends { readonly message: string }>(
  what: string,
  effect: Effect.Effect<void, E>
): Effect.Effect<void> => Effect.catch(effect, (error) => Effect.logError(`${what}: ${error.message}`))

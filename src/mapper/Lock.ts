/**
 * Whoever changes what is mapped does so alone, in the order in which they asked. As a `Semaphore` of one, but for two
 * things: only the wait is left interruptible where the caller is not, and a lock that is free is taken in one operation.
 */
import { Effect, type Fiber } from "effect"

/** What `Effect.uninterruptibleMask` gives: makes an effect as interruptible as the surroundings were. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

interface Turn {
  come: boolean
  resume: (() => void) | undefined
}

export class Lock {
  private held = false
  private readonly waiting = new Set<Turn>()

  /**
   * Runs `effect`, which is as interruptible as the surroundings, once nobody else has the lock. The wait may be interrupted
   * where `wait` allows it, by default where the surroundings do; nothing of `effect` was run then.
   */
  alone<A, E, R>(effect: Effect.Effect<A, E, R>, wait?: Restore): Effect.Effect<A, E, R> {
    return Effect.uninterruptibleMask((restore) => {
      if (!this.held) {
        this.held = true
        return Effect.onExit(restore(effect), () => this.leave)
      }
      const turn: Turn = { come: false, resume: undefined }
      this.waiting.add(turn)
      const comes = Effect.callback<void>((resume) => {
        if (turn.come) resume(Effect.void)
        else turn.resume = () => resume(Effect.void)
      })
      return Effect.onExit(Effect.andThen((wait ?? restore)(comes), restore(effect)), () =>
        turn.come ? this.leave : Effect.sync(() => this.waiting.delete(turn))
      )
    })
  }

  /** The next one has it from this moment on, whenever it goes on. */
  private readonly leave: Effect.Effect<void> = Effect.withFiber((fiber) => {
    this.pass(fiber)
    return Effect.void
  })

  private pass(by: Fiber.Fiber<unknown, unknown>): void {
    const [next] = this.waiting
    if (next === undefined) {
      this.held = false
      return
    }
    this.waiting.delete(next)
    next.come = true
    // Not at once: a long queue would be as many calls within each other.
    by.currentDispatcher.scheduleTask(() => next.resume?.(), 0)
  }
}

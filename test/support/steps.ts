/** Stops an operation at each of its steps in turn, by a failure and by an interruption. */
import { Deferred, Effect, Exit, Fiber } from "effect"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"

/**
 * Runs `operation` again and again, stopped at its first step, its second, … until it passes a run without being
 * stopped. `check` runs after each stop before the operation's last act (see `done`), with the name of the step as its
 * second argument; `afterSuccess` after each run that got past it. Returns the names of the steps that can fail.
 */
export const atEveryStep = <E, R, R2>(
  operation: (done: Effect.Effect<void>) => Effect.Effect<unknown, E, R>,
  check: (how: "failure" | "interruption", step: string) => Effect.Effect<void, unknown, R2>,
  afterSuccess: Effect.Effect<void, unknown, R2>
): Effect.Effect<ReadonlyArray<string>, unknown, R | R2> =>
  Effect.gen(function* () {
    const steps: Array<string> = []
    for (let stop = 1; ; stop++) {
      for (const how of ["failure", "interruption"] as const) {
        let passed = 0
        let stoppedAt: string | undefined
        let done = false
        const reached = yield* Deferred.make<void>()
        const caller = yield* Effect.forkChild(
          operation(
            Effect.sync(() => {
              done = true
            })
          ).pipe(
            Effect.provideService(Steps, (step) => {
              if (++passed !== stop) return Effect.void
              stoppedAt = step
              return how === "failure"
                ? Effect.fail(new InjectedFailure({ step }))
                : Effect.andThen(Deferred.succeed(reached, undefined), Effect.sleep(0))
            })
          )
        )
        if (how === "interruption")
          yield* Effect.forkChild(Effect.andThen(Deferred.await(reached), Fiber.interrupt(caller)), {
            startImmediately: true
          })
        const exit = yield* Fiber.await(caller)
        if (stoppedAt === undefined) {
          yield* Exit.isSuccess(exit) ? afterSuccess : Effect.failCause(exit.cause)
          return steps
        }
        if (done) {
          yield* afterSuccess
          continue
        }
        if (how === "failure") steps.push(stoppedAt)
        yield* check(how, `${stop} ${stoppedAt}`)
      }
    }
  })

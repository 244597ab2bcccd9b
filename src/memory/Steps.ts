/**
 * Where a test may stop an in-memory service: every operation passes a named step before it changes anything. By
 * default a step does nothing.
 */
import { Context, Effect, Schema } from "effect"

/** A failure injected into a step; the service turns it into its own kind of error. */
export class InjectedFailure extends Schema.TaggedError<InjectedFailure>()("InjectedFailure", {
  step: Schema.String
}) {
  override get message(): string {
    return `injected failure at ${this.step}`
  }
}

/**
 * An operation of an in-memory service: passes its step, then makes its change at once. `refusal` turns a failure
 * injected into the step into the service's own error.
 */
export const stepped = <A, E>(
  step: string,
  refusal: (failure: InjectedFailure) => E,
  change: () => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) => {
    const pass = fiber.getRef(Steps)
    return pass === nothing
      ? change()
      : Effect.andThen(Effect.mapError(pass(step), refusal), Effect.suspend(change))
  })

const nothing = () => Effect.void

/** `step` is `Service.method`. A step may fail, wait, or interrupt the fiber that runs it. */
export const Steps = Context.Reference<(step: string) => Effect.Effect<void, InjectedFailure>>(
  "portmapper/memory/Steps",
  { defaultValue: () => nothing }
)

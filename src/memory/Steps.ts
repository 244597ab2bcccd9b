/**
 * Where a test may stop an in-memory service: every operation of one passes a named step before it changes anything.
 * By default a step does nothing.
 */
import { Context, Effect, Schema } from "effect"

/** A failure put into a step; the service turns it into an error of its own kind. */
export class InjectedFailure extends Schema.TaggedError<InjectedFailure>()("InjectedFailure", {
  step: Schema.String
}) {
  override get message(): string {
    return `injected failure at ${this.step}`
  }
}

/** `step` is `Service.method`. A step may fail, wait, or have the fiber that runs it interrupted. */
export const Steps = Context.Reference<(step: string) => Effect.Effect<void, InjectedFailure>>(
  "portmapper/memory/Steps",
  { defaultValue: () => () => Effect.void }
)

import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { InjectedFailure, Steps, stepped } from "../../src/memory/Steps.ts"

describe("a step of an in-memory service", () => {
  /** A service that notes its changes. */
  const change = (done: Array<string>) =>
    stepped(
      "Service.put",
      ({ message }) => `refused: ${message}`,
      () => Effect.sync(() => done.push("change"))
    )

  it.effect("is passed, by its name, before anything changes", () =>
    Effect.gen(function* () {
      const done: Array<string> = []
      yield* change(done)
      yield* Effect.provideService(change(done), Steps, (step) => Effect.sync(() => void done.push(step)))
      assert.deepStrictEqual(done, ["change", "Service.put", "change"])
    })
  )

  it.effect("that fails changes nothing, and is the service's own error", () =>
    Effect.gen(function* () {
      const done: Array<string> = []
      const failing = Effect.provideService(change(done), Steps, (step) =>
        Effect.fail(new InjectedFailure({ step }))
      )
      assert.strictEqual(yield* Effect.flip(failing), "refused: injected failure at Service.put")
      assert.deepStrictEqual(done, [])
    })
  )
})

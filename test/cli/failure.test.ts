import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { failed, mapAs, served, withMemory } from "./asking.ts"

describe("a failure", () => {
  it.live("shows the control characters in it instead of sending them to the terminal", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const labels = { "portmapper.container": "\u001b[2Jweb/0123456789ab" }
        yield* mapAs("engine", "8080", ["tcp 0.0.0.0 10.0.0.1:80"], labels)
        assert.deepStrictEqual(
          yield* ask("drain \u001b]0;x\u0007"),
          failed(
            String.raw`draining \x1b]0;x\x07 failed: nothing leads to \x1b]0;x\x07; there are 10.0.0.1 (\x1b[2Jweb)`
          )
        )
      })
    )
  )
})

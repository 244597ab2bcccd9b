import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect } from "effect"
import { TestConsole } from "effect/testing"
import { CommandFailed, reportFailure, useless } from "../../adapters/cli/failure.ts"
import { failed, mapAs, served, withMemory } from "./asking.ts"

/** The exit status and what is printed on stderr. */
const reported = (cause: Cause.Cause<unknown>) =>
  Effect.gen(function* () {
    const before = process.exitCode
    process.exitCode = undefined
    yield* reportFailure(cause)
    const status = process.exitCode
    process.exitCode = before
    return [status, ...(yield* TestConsole.errorLines)]
  })

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

  it.effect("is 1 and one line, whatever failed", () =>
    Effect.gen(function* () {
      const lines = new CommandFailed({ message: "mapping failed:\n  no\u001b[31m\n  luck " })
      assert.deepStrictEqual(yield* reported(Cause.fail(lines)), [
        1,
        "portmapper: mapping failed:; no\\x1b[31m; luck "
      ])
    })
  )

  it.effect("is 1 where it is a defect, or no error at all", () =>
    Effect.gen(function* () {
      const [status, line] = yield* reported(Cause.die(new Error("of all things")))
      assert.strictEqual(status, 1)
      assert.match(`${line}`, /^portmapper: Error: of all things/)
      assert.deepStrictEqual((yield* reported(Cause.fail("a text"))).slice(0, 1), [1])
    })
  )

  it.effect("is 2 where the command line is wrong, of which the parser has said why", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* reported(Cause.fail(useless(["--a", "--b"], "--c"))), [
        2,
        "portmapper: --a, --b: of no use without --c; give it as well"
      ])
    })
  )

  it.effect("is 2 and silent where the parser itself has reported it", () =>
    Effect.map(reported(Cause.fail({ _tag: "ShowHelp" })), (found) => assert.deepStrictEqual(found, [2]))
  )

  it.effect("is none where the command was interrupted", () =>
    Effect.map(reported(Cause.interrupt(1)), (found) => assert.deepStrictEqual(found, [undefined]))
  )
})

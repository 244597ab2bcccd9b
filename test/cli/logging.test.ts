import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, type LogLevel, Option } from "effect"
import { GlobalFlag } from "effect/cli"
import { TestConsole } from "effect/testing"
import { type LogFormat, loggingLayer } from "../../adapters/cli/logging.ts"

/** What is printed of an info and an error, as lines of stdout and of stderr. */
const logged = (logFormat: LogFormat, own?: LogLevel.LogLevel, ahead?: LogLevel.LogLevel) =>
  Effect.gen(function* () {
    yield* Effect.andThen(Effect.logInfo("an info"), Effect.logError("an error")).pipe(
      Effect.provide(loggingLayer({ logFormat, logLevel: Option.fromUndefinedOr(own) })),
      Effect.provide(
        ahead === undefined ? Layer.empty : Layer.succeed(GlobalFlag.LogLevel, Option.some(ahead))
      )
    )
    assert.deepStrictEqual(yield* TestConsole.logLines, [])
    return (yield* TestConsole.errorLines).map(String)
  })

describe("the log", () => {
  it.effect("is JSON on stderr, a line each", () =>
    Effect.map(logged("json"), (lines) =>
      assert.deepStrictEqual(
        lines.map((line) => JSON.parse(line)).map(({ level, message }) => [level, message]),
        [
          ["INFO", "an info"],
          ["ERROR", "an error"]
        ]
      )
    )
  )

  it.effect("is logfmt on stderr", () =>
    Effect.map(logged("logfmt"), ([line]) => assert.match(line ?? "", / level=INFO .*message="an info"/))
  )

  for (const [title, own, ahead, count] of [
    ["begins with info", undefined, undefined, 2],
    ["begins with the level of the command's own option or variable", "Error", undefined, 1],
    ["begins with the level that is ahead of the command's name, if both are given", "None", "Error", 1],
    ["is none at all at level none", "None", undefined, 0]
  ] as const)
    it.effect(title, () => Effect.map(logged("logfmt", own, ahead), (lines) => assert.lengthOf(lines, count)))
})

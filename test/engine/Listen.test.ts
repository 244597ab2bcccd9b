import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Engine, EngineError, type EngineEvent } from "../../adapters/engine/Engine.ts"
import { listen } from "../../adapters/engine/Listen.ts"
import { atOneTimeOfDay } from "../support/clock.ts"
import * as Memory from "./MemoryEngine.ts"

const lost = new EngineError({ where: "test", reason: "Unreachable", detail: "the connection broke" })
const connected: Stream.Stream<EngineEvent> = Stream.succeed({ _tag: "Connected" })

/** How often the watch connects to an Engine with this stream of events within a time. */
const connections = (events: Stream.Stream<EngineEvent, EngineError>, time: `${number} seconds`) =>
  Effect.gen(function* () {
    let count = 0
    const lines: Array<string> = []
    const engine = { ...(yield* Engine), events }
    yield* atOneTimeOfDay(listen(engine, () => void count++)).pipe(
      Effect.provide(
        Logger.layer([Logger.make(({ message }) => void lines.push([message].flat().join(" ")))])
      ),
      Effect.forkChild
    )
    yield* TestClock.adjust(time)
    return { count, lines }
  }).pipe(Effect.provide(Memory.layer()))

describe("the event stream of an Engine", () => {
  it.effect("is retried with growing delays where the Engine drops each connection", () =>
    Effect.gen(function* () {
      const dropping = Stream.concat(connected, Stream.fail(lost))
      // After 0.1, 0.2, … 6.4 s, and every 10 s from then on.
      assert.strictEqual((yield* connections(dropping, "60 seconds")).count, 12)
    })
  )

  it.effect("is retried at once after a connection that lasted, whatever the time of day", () =>
    Effect.gen(function* () {
      const lasting = Stream.concat(
        connected,
        Stream.fromEffect(Effect.andThen(Effect.sleep("10 seconds"), Effect.fail(lost)))
      )
      const { count, lines } = yield* connections(lasting, "100 seconds")
      assert.strictEqual(count, 10)
      assert.deepStrictEqual(lines.slice(0, 3), [
        "watching the containers of the Engine at memory",
        "the Engine at test: the connection broke; published ports stay published; retrying",
        "watching the containers of the Engine at memory"
      ])
    })
  )
})

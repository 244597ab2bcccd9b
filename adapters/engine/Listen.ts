/** Listens to an Engine for good: reconnects after each loss, with growing delays. */
import { Effect, Result, Stream } from "effect"
import { monotonicMillis } from "../node/monotonicMillis.ts"
import type { Engine, EngineEvent } from "./Engine.ts"

/** After a connection that lasted as long as the longest delay, the delays start again with the first. */
const backOffMillis = { first: 100, most: 10_000 }

/** Never ends. Logs a loss once, however often it retries. */
export const listen = (
  engine: Engine["Service"],
  onEvent: (event: EngineEvent) => void
): Effect.Effect<never> =>
  Effect.gen(function* () {
    let wait = backOffMillis.first
    let lost: string | undefined
    for (;;) {
      let sinceMillis = Number.POSITIVE_INFINITY
      const ended = yield* Effect.result(
        Stream.runForEach(engine.events, (event) =>
          Effect.gen(function* () {
            onEvent(event)
            if (event._tag !== "Connected") return
            sinceMillis = yield* monotonicMillis
            yield* Effect.logInfo(`watching the containers of the Engine at ${engine.where}`)
            lost = undefined
          })
        )
      )
      const why = Result.isFailure(ended) ? ended.failure.message : "the stream of events ended"
      if (why !== lost) yield* Effect.logWarning(`${why}; published ports stay published; retrying`)
      lost = why
      if ((yield* monotonicMillis) - sinceMillis >= backOffMillis.most) wait = backOffMillis.first
      yield* Effect.sleep(wait)
      wait = Math.min(wait * 2, backOffMillis.most)
    }
  })

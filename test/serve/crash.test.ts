/**
 * The crash harness of `scripts/crash`, with as many kills as a slow machine has time for; `npm run crash` does
 * 1,000.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { crash } from "../../scripts/crash/Crash.ts"
import { describeLab } from "../lab/describeLab.ts"
import { seed } from "../property/seed.ts"

describeLab("the plugin, killed at random instants while clients map and unmap", [], () => {
  it.live(
    "loses and duplicates no answered mapping, and leaves no unanswered one that blocks another request",
    () =>
      Effect.gen(function* () {
        const { kills, answered, lost, doubled, blocking } = yield* crash({
          seed,
          kills: 50,
          withinMillis: 40_000,
          program: ["adapters/cli/main.ts"]
        })
        const title = `PORTMAPPER_SEED=${seed}`
        assert.deepStrictEqual({ lost, doubled, blocking }, { lost: [], doubled: [], blocking: [] }, title)
        assert.isAbove(kills, 3, title)
        assert.isAbove(answered, 0, title)
      })
  )

  it.live(
    "leaves nothing of a failed call, and loses nothing, while stores, tables and sockets fail at random",
    () =>
      Effect.gen(function* () {
        const { kills, failed, lost, doubled, blocking } = yield* crash({
          seed,
          kills: 15,
          withinMillis: 20_000,
          faults: true
        })
        const title = `PORTMAPPER_SEED=${seed}`
        assert.deepStrictEqual({ lost, doubled, blocking }, { lost: [], doubled: [], blocking: [] }, title)
        assert.isAbove(kills, 0, title)
        assert.isAbove(failed, 0, title)
      })
  )
})

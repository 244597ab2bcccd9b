/**
 * The harness in the lab: the real plugin, its sockets and the kernel's table, compared with the model after every
 * call.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { exploreRemote, foundText } from "../../src/testing/index.ts"
import { describeLab } from "../lab/describeLab.ts"
import { labHost as host, makeLabTarget } from "./labTarget.ts"
import { labRuns as runs, seed } from "./seed.ts"

console.log(`the harness's seed in the lab: PORTMAPPER_SEED=${seed}`)

describeLab("the mapper on a real host, compared with the model", [], () => {
  it.live(
    "agrees with it while other processes take ports and kills hit it at any time",
    () =>
      Effect.gen(function* () {
        const target = yield* makeLabTarget
        const found = yield* exploreRemote({ seed, runs, host, target, reach: "host", sctp: false })
        if (found !== undefined) assert.fail(foundText(found, host))
      }).pipe(Effect.scoped),
    240_000
  )
})

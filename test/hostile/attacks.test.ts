/** The short form of `npm run hostile`. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import { attacks } from "./attacks.ts"

describeLab("an attack", [], () => {
  for (const { attack, holds, run } of attacks.filter(({ isShort }) => isShort))
    it.live(`by ${attack}: ${holds}`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* run(() => {}), [])
      })
    )
})

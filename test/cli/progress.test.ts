import { assert, describe, it } from "@effect/vitest"
import { barText } from "../../adapters/cli/progress.ts"

describe("the progress bar", () => {
  it("never wraps", () => {
    assert.strictEqual(
      barText("mapping", 2500, 10_000, 80),
      "mapping  2500 of 10000 [==========>                             ]  25%"
    )
    assert.strictEqual(barText("mapping", 0, 50, 40), "mapping  0 of 50 [>              ]   0%")
    assert.strictEqual(barText("mapping", 50, 50, 40), "mapping 50 of 50 [===============] 100%")
    assert.strictEqual(barText("mapping", 5, 50, 24), "mapping  5 of 50  10%")
    for (let columns = 1; columns < 100; columns++)
      assert.isBelow(barText("mapping", 3, 50, columns).length, Math.max(columns, 1))
  })
})

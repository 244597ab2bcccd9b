import { assert, describe, it } from "@effect/vitest"
import { every, is, type Match, matches, not, some } from "../../adapters/doctor/Match.ts"

const all: ReadonlyArray<Match> = ["yes", "mostly", "rarely", "no", "unknown"]

describe("Match", () => {
  it("turns each match into its opposite, and leaves what is unknown", () => {
    assert.deepStrictEqual(all.map(not), ["no", "rarely", "mostly", "yes", "unknown"])
    for (const match of all) assert.strictEqual(not(not(match)), match)
  })

  it("counts a match of all but special packets as a match of an ordinary one", () =>
    assert.deepStrictEqual(all.filter(matches), ["yes", "mostly"]))

  it("is for all of several the weakest, and for one of several the strongest", () => {
    assert.strictEqual(every([]), "yes")
    assert.strictEqual(some([]), "no")
    assert.strictEqual(every(["yes", "mostly", "rarely"]), "rarely")
    assert.strictEqual(every(["yes", "unknown", "rarely"]), "unknown")
    assert.strictEqual(every(["no", "unknown"]), "no")
    assert.strictEqual(some(["no", "unknown", "rarely"]), "rarely")
    assert.strictEqual(some(["mostly", "yes", "no"]), "yes")
  })

  it("of a condition is certain", () => assert.deepStrictEqual([is(true), is(false)], ["yes", "no"]))
})

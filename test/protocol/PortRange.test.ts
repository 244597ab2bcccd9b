import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { parsePortRange, rangeText } from "../../src/protocol/PortRange.ts"

describe("a range of ports", () => {
  for (const [text, outcome] of [
    ["8000-8010", { first: 8000, last: 8010 }],
    ["8000", { first: 8000, last: 8000 }],
    ["1-65535", { first: 1, last: 65_535 }],
    ["0", "ports are 1 to 65535"],
    ["65536", "ports are 1 to 65535"],
    ["1-65536", "ports are 1 to 65535"],
    ["8010-8000", "the range ends before it starts"],
    ["", "expected PORT or FIRST-LAST"],
    ["8000-", "expected PORT or FIRST-LAST"],
    [" 8000", "expected PORT or FIRST-LAST"],
    ["0x50", "expected PORT or FIRST-LAST"]
  ] as const)
    it(`${JSON.stringify(text)}: ${JSON.stringify(outcome)}`, () =>
      assert.deepStrictEqual(Result.merge(parsePortRange(text)), outcome))

  it("is written as one port where both ends are equal", () =>
    assert.deepStrictEqual(
      [rangeText({ first: 1, last: 2 }), rangeText({ first: 80, last: 80 })],
      ["1-2", "80"]
    ))
})

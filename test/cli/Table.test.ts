import { assert, describe, it } from "@effect/vitest"
import { printable } from "../../adapters/cli/Table.ts"

describe("text from other programs", () => {
  it("reaches a terminal without its control characters", () => {
    assert.strictEqual(
      printable("a\u0000\t\u009b31m\u202e\u2028é日"),
      "a\\x00\\x09\\x9b31m\\u{202e}\\u{2028}é日"
    )
  })
})

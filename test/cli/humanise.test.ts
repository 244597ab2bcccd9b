import { assert, describe, it } from "@effect/vitest"
import { age, bytes, count } from "../../adapters/cli/humanise.ts"

describe("a figure", () => {
  it("is short: an age", () => {
    const [minute, hour, day] = [60_000, 3_600_000, 86_400_000]
    assert.deepStrictEqual(
      [
        -5,
        0,
        59_999,
        minute,
        hour - 1,
        hour,
        47 * hour,
        2 * day,
        13 * day,
        14 * day,
        729 * day,
        730 * day
      ].map(age),
      ["0s", "0s", "59s", "1m", "59m", "1h", "47h", "2d", "13d", "2w", "104w", "2y"]
    )
  })

  it("is short: a number of bytes or of connections", () => {
    assert.deepStrictEqual(
      [0, 999, 1000, 1234, 9995, 99_949, 99_950, 999_499, 999_500, 1e9, 2 ** 53].map(bytes),
      ["0B", "999B", "1.00kB", "1.23kB", "10.0kB", "99.9kB", "100kB", "999kB", "1.00MB", "1.00GB", "9.01PB"]
    )
    assert.deepStrictEqual([0, 99_999, 100_000, 1_234_567].map(count), ["0", "99999", "100k", "1.23M"])
  })
})

import "./english.ts"
import { assert, describe, it } from "@effect/vitest"
import {
  age,
  bytes,
  bytesPerSecond,
  clockTime,
  count,
  exactTime,
  perSecond,
  time,
  visible
} from "../../../adapters/page/app/format.ts"

describe("a figure on the page", () => {
  it("is exact as long as it is short", () => {
    assert.deepStrictEqual([0, 999, 1000, 99_999, 100_000, 1_234_567].map(count), [
      "0",
      "999",
      "1,000",
      "99,999",
      "100k",
      "1.23m"
    ])
  })

  it("per second has two digits below ten, and is whole above", () => {
    assert.deepStrictEqual([0, 0.04, 0.444, 9.96, 10.4, 123_456].map(perSecond), [
      "0/s",
      "0.04/s",
      "0.44/s",
      "10/s",
      "10/s",
      "123k/s"
    ])
  })

  it("of bytes is in powers of 1000 with three digits, never 1000 of a unit", () => {
    assert.deepStrictEqual([0, 1, 999, 1000, 999_499, 999_500, 1e9, 1.5e15, 1e19].map(bytes), [
      "0 kB",
      "0.001 kB",
      "0.999 kB",
      "1 kB",
      "999 kB",
      "1 MB",
      "1 GB",
      "1.5 PB",
      "10,000 PB"
    ])
    assert.strictEqual(bytesPerSecond(2_500_000), "2.5 MB/s")
  })

  it("of an age is in the largest unit of which there are two, rounded down, and none of the future", () => {
    const [minute, hour, day] = [60_000, 3_600_000, 86_400_000]
    assert.deepStrictEqual(
      [
        -5000,
        999,
        119_999,
        2 * minute,
        2 * hour - 1,
        2 * hour,
        2 * day - 1,
        2 * day,
        14 * day - 1,
        14 * day,
        730 * day - 1,
        730 * day
      ].map(age),
      ["0s", "0s", "119s", "2m", "119m", "2h", "47h", "2d", "13d", "2w", "104w", "2y"]
    )
  })
})

describe("a time on the page", () => {
  const at = Date.UTC(2026, 0, 2, 3, 4, 5)

  it("is that of the clock alone if it is of today", () => {
    // Today is the browser's, whose zone the test can't choose.
    assert.strictEqual(time(at, at), clockTime(at))
    assert.strictEqual(time(at, at + 48 * 3_600_000), "02/01/2026, 03:04:05")
  })

  it("has the day, the second and the zone where it is exact", () => {
    assert.match(exactTime(at), /^Friday,? 2 January 2026 at 03:04:05 UTC$/)
  })
})

describe("what others named", () => {
  it("shows the characters that are not seen or turn the text", () => {
    assert.strictEqual(
      visible("a\u001b[31m\u202eexe.gpj\u2066\u0000\u061c<b>שלום é😀"),
      "a\\u001b[31m\\u202eexe.gpj\\u2066\\u0000\\u061c<b>שלום é😀"
    )
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { joinMarks } from "../../../adapters/linux/nft/LiveMark.ts"
import type { AcceptMark } from "../../../adapters/linux/nft/Ruleset.ts"

const joined = (given: AcceptMark | undefined, live: AcceptMark | undefined) =>
  Result.match(joinMarks(given, live), { onSuccess: (mark) => mark, onFailure: ({ message }) => message })

const all = 0xffffffff
const high = { mark: 0x80000000, mask: 0x80000000 }

describe("the marks of a process and of the table that it finds", () => {
  for (const [title, given, live, expected] of [
    ["are none where neither has one", undefined, undefined, undefined],
    ["are the given one alone", { mark: 1, mask: 1 }, undefined, { mark: 1, mask: 1 }],
    ["are the table's alone", undefined, high, high],
    ["are one where both are the same", high, high, high],
    [
      "are joined where they share no bits",
      { mark: 1, mask: 3 },
      high,
      { mark: 0x80000001, mask: 0x80000003 }
    ],
    ["are joined where shared bits agree", { mark: 3, mask: 7 }, { mark: 2, mask: 2 }, { mark: 3, mask: 7 }],
    [
      "are refused where shared bits differ",
      { mark: 1, mask: all },
      { mark: 0x5000, mask: 0xf000 },
      "the mark 0x1 contradicts 0x5000/0xf000, which published ports rest on: give --accept-fwmark 0x5000/0xf000 until they are unmapped"
    ]
  ] as const)
    it(title, () => assert.deepStrictEqual(joined(given, live), expected))
})

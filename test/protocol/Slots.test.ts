import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { parseSlots, type Size, sizeFor, slotsText, spread, widened } from "../../src/protocol/Slots.ts"

const all = (size: number) => Array.from({ length: size }, (_, slot) => slot)

const isEven = (size: number, spreads: ReadonlyArray<ReadonlyArray<number>>) => {
  assert.deepStrictEqual(
    spreads.flat().sort((a, b) => a - b),
    all(size)
  )
  const counts = spreads.map(({ length }) => length)
  assert.isAtMost(Math.max(...counts) - Math.min(...counts), 1)
}

describe("Slots", () => {
  it("gives a single backend all slots, and three a third each", () => {
    assert.deepStrictEqual(spread(64, [[]]), [all(64)])
    const three = [[], [], []].map((_, index) => spread(64, [[], [], []])[index]?.length)
    assert.deepStrictEqual(three, [22, 21, 21])
  })

  it("moves only the slots that a backend takes or leaves, whatever comes and goes", () => {
    const steps = fc.array(
      fc.oneof(
        fc.constant("join" as const),
        fc.nat(40).map((member) => ({ leaves: member }))
      ),
      { maxLength: 40 }
    )
    fc.assert(
      fc.property(fc.constantFrom<Size>(64, 1024), steps, (size, script) => {
        let members: ReadonlyArray<ReadonlyArray<number>> = [spread(size, [[]])[0] ?? []]
        for (const step of script) {
          const joins = step === "join"
          if (!joins && members.length === 1) continue
          const leaving = joins ? -1 : step.leaves % members.length
          const staying = members.filter((_, member) => member !== leaving)
          const next = spread(size, joins ? [...staying, []] : staying)
          isEven(size, next)
          const moved = joins ? (next.at(-1) ?? []) : (members[leaving] ?? [])
          for (const [member, slots] of staying.entries()) {
            const after = new Set(next[member])
            // Every slot that a staying backend loses goes to the newcomer; one that it gains was the leaver's.
            for (const slot of slots) if (!after.has(slot)) assert.include(joins ? moved : [], slot)
            const had = new Set(slots)
            for (const slot of after) if (!had.has(slot)) assert.include(joins ? [] : moved, slot)
          }
          // An eviction that is undone leaves no trace.
          if (!joins) assert.deepStrictEqual(spread(size, [...next, moved]), [...staying, moved])
          members = next
        }
      }),
      { numRuns: 30 }
    )
  })

  it("gives a backend that comes back the slots it had, as far as they are spare", () => {
    const before = spread(64, [[], [], []])
    const [a = [], b = [], c = []] = before
    const without = spread(64, [a, c])
    assert.deepStrictEqual(spread(64, [...without, b]), [a, c, b])
  })

  it("completes a spread that has gaps and overlaps", () => {
    isEven(64, spread(64, [[1, 2, 3, 4], [3, 4, 5, 70], all(64)]))
  })

  it("keeps the backend of a hash when the number of slots grows", () => {
    const slots = [0, 5, 63]
    const wide = new Set(widened(slots, 64, 1024))
    for (let slot = 0; slot < 1024; slot++) assert.strictEqual(wide.has(slot), slots.includes(slot >> 4))
    assert.strictEqual(widened(slots, 64, 64), slots)
  })

  it("grows with the seventeenth backend and never shrinks", () => {
    assert.strictEqual(sizeFor(16, 64), 64)
    assert.strictEqual(sizeFor(17, 64), 1024)
    assert.strictEqual(sizeFor(1, 1024), 1024)
  })

  it("reads the text that it writes, and no other", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(1023)), (slots) => {
        const sorted = slots.sort((a, b) => a - b)
        assert.deepStrictEqual(parseSlots(slotsText(sorted)), sorted)
      })
    )
    for (const text of ["1,1", "3-2", "1024", "a", "5,4", "1-", ",", "0-99999"])
      assert.isUndefined(parseSlots(text), text)
  })
})

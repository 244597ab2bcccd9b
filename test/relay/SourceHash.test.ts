import { assert, describe, it } from "@effect/vitest"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { jhash, slotOfSource } from "../../src/relay/SourceHash.ts"

const octets = (text: string) => addressUnsafe(text).octets

describe("the hash of a source", () => {
  it("is that of lookup3.c, by its author's own vectors", () => {
    const text = new TextEncoder().encode("Four score and seven years ago")
    assert.deepStrictEqual(
      [0, 1].map((seed) => jhash(text, 0, text.length, seed)),
      [0x17770551, 0xcd628161]
    )
    assert.strictEqual(jhash(text, 0, 0, 0), 0xdeadbeef)
  })

  it("is of the bytes at an offset, whatever is around them", () => {
    const bytes = Uint8Array.of(9, 9, 9, ...octets("203.0.113.7"), 9)
    assert.strictEqual(jhash(bytes, 3, 4, 1), jhash(octets("203.0.113.7"), 0, 4, 1))
  })

  it("gives every slot of a service about as many sources", () => {
    const counts = new Uint32Array(64)
    for (let source = 0; source < 64_000; source++) {
      const slot = slotOfSource(Uint8Array.of(10, source >> 16, source >> 8, source), 0, 4, 64)
      counts[slot] = (counts[slot] ?? 0) + 1
    }
    assert.isTrue(
      counts.every((count) => count > 850 && count < 1150),
      `${counts}`
    )
  })
})

import { assert, describe, it } from "@effect/vitest"
import {
  type Element,
  elementKey,
  ruleSets,
  sameData,
  setOf,
  setText,
  tableSets,
  tellingSets
} from "../../../adapters/linux/nft/TableSets.ts"

describe("the sets of our table", () => {
  it("have names of their own, by kind, scope and family", () => {
    assert.strictEqual(new Set(tableSets.map(({ name }) => name)).size, tableSets.length)
    assert.deepStrictEqual(
      (["redirect", "allowed", "random64"] as const).map((kind) => setOf(kind, "any", 6).name),
      ["any6", "allowed_any6", "random64_any6"]
    )
    assert.strictEqual(setOf("loopback", "addr", 4).name, "loopback4")
    assert.throws(() => setOf("loopback", "any", 4), "no set loopback any 4")
  })

  it("are those of rules without the refused flows, and tell of a rule without its hairpin", () => {
    const kinds = (sets: typeof tableSets) => new Set(sets.map(({ kind }) => kind))
    assert.deepStrictEqual([...kinds(tableSets).difference(kinds(ruleSets))], ["refused"])
    assert.deepStrictEqual([...kinds(ruleSets).difference(kinds(tellingSets))], ["hairpin"])
  })

  it("have keys as short as can be, and a backend where they lead to one", () => {
    const text = (...[kind, scope, family]: Parameters<typeof setOf>) => setText(setOf(kind, scope, family))
    assert.deepStrictEqual(
      [
        text("redirect", "any", 4),
        text("redirect", "addr", 6),
        text("limited", "any", 4),
        text("allowed", "addr", 4),
        text("denied", "any", 6),
        text("rate", "any", 4),
        text("refused", "addr", 6),
        text("source1024", "any", 4),
        text("random64", "addr", 6)
      ],
      [
        "map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; counter; }",
        "map addr6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; counter; }",
        "set limited_any4 { type inet_proto . inet_service; }",
        "set allowed_addr4 { type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; }",
        "set denied_any6 { type inet_proto . inet_service; counter; }",
        "set rate_any4 { type inet_proto . inet_service; limit rate over 1/second; }",
        "set refused6 { type ipv6_addr . inet_proto . inet_service . ipv6_addr . inet_service; flags timeout; timeout 5d; }",
        "map source1024_any4 { typeof meta l4proto . th dport . numgen random mod 1024 : ip daddr . th dport; counter; }",
        "map random64_addr6 { typeof ip6 daddr . meta l4proto . th dport . numgen random mod 64 : ip6 daddr . th dport; counter; }"
      ]
    )
  })
})

describe("an element", () => {
  const element = (more: Partial<Element> = {}): Element => ({
    set: setOf("allowed", "any", 4),
    key: Uint8Array.of(1),
    last: undefined,
    data: undefined,
    ...more
  })

  it("is known by its set and range", () => {
    const keys = [
      element(),
      element({ set: setOf("allowed", "any", 6) }),
      element({ key: Uint8Array.of(2) }),
      element({ last: Uint8Array.of(1) }),
      element({ last: Uint8Array.of(255) })
    ].map(elementKey)
    assert.strictEqual(new Set(keys).size, keys.length)
    // A view of a longer buffer.
    assert.strictEqual(elementKey(element({ key: Uint8Array.of(0, 1, 2).subarray(1, 2) })), keys[0])
  })

  it("has other data with another backend or rate, or without one", () => {
    const [one, other] = [Uint8Array.of(10, 0), Uint8Array.of(10, 1)]
    const same = (first: Partial<Element>, second: Partial<Element>) =>
      sameData(element(first), element(second))
    assert.isTrue(same({}, {}))
    assert.isTrue(same({ data: one, rate: 5 }, { data: one.slice(), rate: 5 }))
    assert.isFalse(same({ data: one }, { data: other }))
    assert.isFalse(same({ data: one }, {}))
    assert.isFalse(same({ rate: 5 }, { rate: 6 }))
  })
})

import { assert, describe, it } from "@effect/vitest"
import { IpNetwork } from "effect/net"
import { elementsOf } from "../../../adapters/linux/nft/RuleElements.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"

const allowed = (host: string, networks: ReadonlyArray<string>): ReadonlyArray<string> =>
  elementsOf({
    _tag: "Limit",
    protocol: "tcp",
    host: addressUnsafe(host),
    port: 80,
    allow: networks.map((text) => IpNetwork.fromStringUnsafe(text))
  }).flatMap(({ set, key, last }) =>
    set.kind === "allowed" ? [`${key.slice(8).join(".")}-${last?.slice(8).join(".")}`] : []
  )

describe("the sources of a rule", () => {
  it("are the networks of its family, without those inside another, in any order", () => {
    const networks = ["10.1.2.0/24", "10.0.0.0/8", "192.0.2.7/32", "10.0.0.0/8", "2001:db8::/32", "9.0.0.0/8"]
    for (const given of [networks, [...networks].reverse()])
      assert.deepStrictEqual(allowed("0.0.0.0", given), [
        "9.0.0.0-9.255.255.255",
        "10.0.0.0-10.255.255.255",
        "192.0.2.7-192.0.2.7"
      ])
    assert.deepStrictEqual(allowed("::", networks), [
      "32.1.13.184.0.0.0.0.0.0.0.0.0.0.0.0-32.1.13.184.255.255.255.255.255.255.255.255.255.255.255.255"
    ])
    assert.deepStrictEqual(allowed("0.0.0.0", ["0.0.0.0/0", "10.0.0.0/8", "255.255.255.255/32"]), [
      "0.0.0.0-255.255.255.255"
    ])
  })

  // Comparing each with each would take an hour.
  it("are found among a hundred thousand in no time to speak of", () => {
    const networks = Array.from({ length: 100_000 }, (_, index) => {
      const mixed = (index * 7919) % 100_000
      return `10.${mixed >> 16}.${(mixed >> 8) & 255}.${mixed & 255}/32`
    })
    assert.strictEqual(allowed("0.0.0.0", networks).length, 100_000)
  })
})

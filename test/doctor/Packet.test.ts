import { assert, describe, it } from "@effect/vitest"
import { isInterface, isPlaceWithin, isPortWithin } from "../../adapters/doctor/Packet.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

const octets = (text: string) => addressUnsafe(text).octets

describe("a packet", () => {
  it("has a known port within inclusive bounds", () => {
    assert.deepStrictEqual(
      [79, 80, 90, 91].map((port) => isPortWithin(port, 80, 90)),
      ["no", "yes", "yes", "no"]
    )
  })

  it("has an open source port within what covers the usual ephemeral ports, and rarely within less", () => {
    assert.strictEqual(isPortWithin(undefined, 0, 65_535), "yes")
    assert.strictEqual(isPortWithin(undefined, 1024, 65_535), "mostly")
    assert.strictEqual(isPortWithin(undefined, 32_768, 60_999), "mostly")
    assert.strictEqual(isPortWithin(undefined, 40_000, 60_999), "rarely")
    assert.strictEqual(isPortWithin(undefined, 53, 53), "rarely")
  })

  it("has a known address within inclusive bounds of its own family", () => {
    const within = (address: string) =>
      isPlaceWithin(octets(address), 4, octets("172.17.0.0"), octets("172.17.255.255"))
    assert.deepStrictEqual(["172.17.0.0", "172.17.255.255", "172.18.0.0", "172.16.255.255"].map(within), [
      "yes",
      "yes",
      "no",
      "no"
    ])
    assert.strictEqual(isPlaceWithin(octets("172.17.0.2"), 4, octets("::"), octets("ffff::")), "no")
  })

  it("has any outside address within all addresses, and rarely within fewer", () => {
    assert.strictEqual(isPlaceWithin(undefined, 4, octets("0.0.0.0"), octets("255.255.255.255")), "yes")
    assert.strictEqual(isPlaceWithin(undefined, 4, octets("10.0.0.0"), octets("10.255.255.255")), "rarely")
    assert.strictEqual(isPlaceWithin(undefined, 6, octets("0.0.0.0"), octets("255.255.255.255")), "no")
  })

  it("has an interface by its name, or by a beginning that ends in * or +, and none where it has left", () => {
    assert.deepStrictEqual(
      ["docker0", "docker*", "docker+", "eth0", "docker"].map((pattern) => isInterface("docker0", pattern)),
      ["yes", "yes", "yes", "no", "no"]
    )
    assert.strictEqual(isInterface(undefined, "*"), "no")
  })
})

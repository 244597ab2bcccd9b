import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { IpNetwork } from "effect/net"
import {
  addressUnsafe,
  covers,
  hostText,
  isLinkLocal,
  isLoopback,
  isMulticastOrBroadcast,
  isUnspecified,
  parseAddress,
  parseNetwork
} from "../../src/protocol/Address.ts"

describe("parseAddress", () => {
  it.each([
    ["10.0.0.1", { text: "10.0.0.1", family: 4, zone: "", key: "10.0.0.1" }],
    ["2001:DB8::1", { text: "2001:db8::1", family: 6, zone: "", key: "2001:db8::1" }],
    ["::FFFF:A00:1", { text: "::ffff:10.0.0.1", family: 4, zone: "", key: "10.0.0.1" }],
    ["fe80::1%eth0", { text: "fe80::1%eth0", family: 6, zone: "eth0", key: "fe80::1%eth0" }]
  ])("reads %s", (text, expected) => {
    const { octets: _, ...address } = Result.getOrThrow(parseAddress(text))
    assert.deepStrictEqual(address, expected as typeof address)
  })

  it("keeps the octets of the canonical address", () => {
    assert.deepStrictEqual(addressUnsafe("::ffff:10.0.0.1").octets, Uint8Array.of(10, 0, 0, 1))
    assert.strictEqual(addressUnsafe("fe80::1").octets.length, 16)
  })

  it("returns one value for equal addresses, whatever other addresses exist", () => {
    assert.strictEqual(addressUnsafe("10.0.0.1"), addressUnsafe("10.0.0.1"))
    assert.strictEqual(addressUnsafe("2001:DB8::1"), addressUnsafe("2001:db8::1"))
    assert.notStrictEqual(addressUnsafe("::ffff:10.0.0.1"), addressUnsafe("10.0.0.1"))
    for (let index = 0; index < 3000; index++) {
      const text = `10.1.${index >> 8}.${index & 255}`
      assert.strictEqual(addressUnsafe(text).text, text)
    }
    assert.deepStrictEqual(addressUnsafe("10.1.0.0").octets, Uint8Array.of(10, 1, 0, 0))
  })

  it.each([
    ["", "not an IPv4 or IPv6 address"],
    ["10.0.0.256", "not an IPv4 or IPv6 address"],
    ["fe80::1%", "the zone after % is empty"],
    ["10.0.0.1%eth0", "only an IPv6 address has a zone"]
  ])("refuses %j: %s", (text, reason) => {
    assert.deepStrictEqual(parseAddress(text), Result.fail(reason))
  })
})

describe("parseNetwork", () => {
  it.each([
    ["10.0.0.0/8", "10.0.0.0/8"],
    ["10.0.0.1", "10.0.0.1/32"],
    ["2001:DB8::/32", "2001:db8::/32"],
    ["2001:db8::1", "2001:db8::1/128"],
    ["::ffff:198.51.100.2", "198.51.100.2/32"],
    ["::FFFF:c633:6400/120", "198.51.100.0/24"],
    ["0:0:0:0:0:ffff:0:0/96", "0.0.0.0/0"],
    ["::/0", "::/0"]
  ])("reads %s as %s", (text, expected) => {
    assert.deepStrictEqual(Result.map(parseNetwork(text), IpNetwork.format), Result.succeed(expected))
  })

  it.each([
    ["", "expected an address and prefix length separated by one slash"],
    ["10.0.0.0/33", "prefix length must be an integer from 0 through 32"],
    ["10.0.0.1/8", "address has non-zero host bits"],
    ["::ffff:0.0.0.0/95", "address has non-zero host bits"]
  ])("refuses %j: %s", (text, reason) => {
    assert.deepStrictEqual(parseNetwork(text), Result.fail(reason))
  })
})

describe("an address", () => {
  it.each([
    ["0.0.0.0", ["unspecified"]],
    ["::ffff:0.0.0.0", ["unspecified"]],
    ["::", ["unspecified"]],
    ["127.1.2.3", ["loopback"]],
    ["::1", ["loopback"]],
    ["169.254.0.1", ["link-local"]],
    ["febf::1", ["link-local"]],
    ["fec0::1", []],
    ["223.255.255.255", []],
    ["224.0.0.0", ["multicast"]],
    ["239.255.255.255", ["multicast"]],
    ["240.0.0.0", []],
    ["255.255.255.255", ["multicast"]],
    ["ff02::1", ["multicast"]],
    ["fe00::1", []]
  ])("%s is %j", (text, expected) => {
    const address = addressUnsafe(text)
    const kinds = {
      unspecified: isUnspecified,
      loopback: isLoopback,
      "link-local": isLinkLocal,
      multicast: isMulticastOrBroadcast
    }
    assert.deepStrictEqual(
      Object.entries(kinds).flatMap(([kind, is]) => (is(address) ? [kind] : [])),
      expected
    )
  })

  it("covers itself, and all of its family where it is unspecified", () => {
    const covered = (holder: string, other: string) => covers(addressUnsafe(holder), addressUnsafe(other))
    assert.isTrue(covered("0.0.0.0", "10.0.0.1"))
    assert.isTrue(covered("10.0.0.1", "::ffff:10.0.0.1"))
    assert.isTrue(covered("::", "fe80::1%eth0"))
    assert.isFalse(covered("10.0.0.1", "0.0.0.0"))
    assert.isFalse(covered("::", "0.0.0.0"))
  })

  it("stands in brackets before a port if it has colons", () => {
    assert.strictEqual(hostText(addressUnsafe("10.0.0.1")), "10.0.0.1")
    assert.strictEqual(hostText(addressUnsafe("::1")), "[::1]")
  })
})

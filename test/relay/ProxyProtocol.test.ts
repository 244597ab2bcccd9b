import { assert, describe, it } from "@effect/vitest"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { proxyHeader } from "../../src/relay/ProxyProtocol.ts"

const peer = (address: string, port: number) => ({ octets: addressUnsafe(address).octets, port })
const text = (source: readonly [string, number], destination: readonly [string, number]) =>
  new TextDecoder().decode(proxyHeader("v1", peer(...source), peer(...destination)))
const hex = (source: readonly [string, number], destination: readonly [string, number]) =>
  Buffer.from(proxyHeader("v2", peer(...source), peer(...destination))).toString("hex")

const signature = "0d0a0d0a000d0a515549540a"
const allOnes = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

describe("proxyHeader", () => {
  it("writes the specification's example of version 1", () => {
    assert.strictEqual(
      text(["192.168.0.1", 56324], ["192.168.0.11", 443]),
      "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    )
  })

  it("writes the specification's worst cases of version 1, of 56 and 104 bytes", () => {
    const worst4 = text(["255.255.255.255", 65535], ["255.255.255.255", 65535])
    const worst6 = text([allOnes, 65535], [allOnes, 65535])
    assert.strictEqual(worst4, "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n")
    assert.strictEqual(worst6, `PROXY TCP6 ${allOnes} ${allOnes} 65535 65535\r\n`)
    assert.deepStrictEqual([worst4.length, worst6.length], [56, 104])
  })

  it("writes IPv6 addresses of version 1 in the canonical form, wherever their zeros are", () => {
    assert.strictEqual(
      text(["::1", 1], ["2001:db8:0:0:1:0:0:a", 80]),
      "PROXY TCP6 ::1 2001:db8::1:0:0:a 1 80\r\n"
    )
    for (let zeros = 0; zeros < 256; zeros++) {
      const groups = Array.from({ length: 8 }, (_, at) => ((zeros >> at) & 1 ? 0 : 0x1000 + at).toString(16))
      const { text: expected } = addressUnsafe(groups.join(":"))
      assert.strictEqual(text([expected, 1], ["::", 2]), `PROXY TCP6 ${expected} :: 1 2\r\n`)
    }
  })

  it("writes version 2 over IPv4: signature, PROXY, TCP over IPv4, 12 bytes of addresses", () => {
    assert.strictEqual(
      hex(["192.168.0.1", 56324], ["192.168.0.11", 443]),
      `${signature}2111000cc0a80001c0a8000bdc0401bb`
    )
  })

  it("writes version 2 over IPv6: signature, PROXY, TCP over IPv6, 36 bytes of addresses", () => {
    assert.strictEqual(
      hex(["2001:db8::1", 1], ["::1", 65535]),
      `${signature}21210024${"20010db8000000000000000000000001"}${"0".repeat(31)}10001ffff`
    )
  })
})

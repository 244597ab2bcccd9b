import { assert, describe, it } from "@effect/vitest"
import * as C from "../../../adapters/linux/Libc.ts"
import {
  boundTo,
  scopeOf,
  socketAddress,
  unixAddress
} from "../../../adapters/linux/sockets/SocketAddress.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"

const hex = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString("hex")
const { socket, bind, close } = C.libc()

describe("the address of a socket", () => {
  it("has the port in network order, and of IPv6 the scope", () => {
    assert.strictEqual(
      hex(socketAddress(addressUnsafe("10.0.0.2"), 8080, 7)),
      "02001f900a000002".padEnd(32, "0")
    )
    assert.strictEqual(
      hex(socketAddress(addressUnsafe("fe80::1"), 53, 7)),
      `0a00003500000000fe80${"0".repeat(26)}0107000000`.replace("26", "")
    )
  })

  it("is read back from a bound socket, and is none of another kind of socket", () => {
    for (const [host, domain] of [
      ["127.0.0.1", C.AF_INET],
      ["::1", C.AF_INET6]
    ] as const) {
      const fd = socket(domain, C.SOCK_DGRAM, 0)
      const address = socketAddress(addressUnsafe(host), 0, 0)
      bind(fd, address, address.length)
      const found = boundTo(C.libc(), fd)
      assert.strictEqual(found?.address.text, host)
      assert.isAbove(found?.port ?? 0, 0)
      close(fd)
    }
    const unix = socket(C.AF_UNIX, C.SOCK_DGRAM, 0)
    assert.deepStrictEqual([boundTo(C.libc(), unix), boundTo(C.libc(), 100_000)], [undefined, undefined])
    close(unix)
  })

  it("of a Unix socket is a path that ends in a zero, or an abstract name that begins with one", () => {
    assert.strictEqual(hex(unixAddress("/a")), "01002f6100")
    assert.strictEqual(hex(unixAddress("\0a")), "01000061")
    // In bytes, not in characters.
    assert.strictEqual(unixAddress(`${"é".repeat(53)}a`)?.length, 2 + 107 + 1)
    assert.isUndefined(unixAddress("é".repeat(54)))
  })

  it("has the scope of its zone's interface, by name or number", () => {
    const scope = (text: string) => scopeOf(C.libc(), addressUnsafe(text))
    const loopback = C.libc().ifNameToIndex(new TextEncoder().encode("lo\0"))
    assert.deepStrictEqual(["fe80::1", "fe80::1%lo", "fe80::1%12"].map(scope), [0, loopback, 12])
    for (const zone of ["nowhere", "012"]) assert.isBelow(scope(`fe80::1%${zone}`), 0)
  })
})

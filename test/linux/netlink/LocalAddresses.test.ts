import { assert, it } from "@effect/vitest"
import { Result } from "effect"
import { libc } from "../../../adapters/linux/Libc.ts"
import { readLocal } from "../../../adapters/linux/netlink/LocalAddresses.ts"
import { NETLINK_ROUTE, openNetlink } from "../../../adapters/linux/netlink/Netlink.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"
import { describeInNamespace, ip } from "../../lab/ThreadNamespace.ts"
import { untilEqual } from "../../support/until.ts"

describeInNamespace("an address of this host", () => {
  it("is one of an interface, or in a range that is routed to the host as a whole, to its last bit", async () => {
    ip("link add eth0 type bridge")
    ip("link set eth0 up")
    ip("address add 10.1.0.1/24 dev eth0")
    ip("address add fd00:1::1/64 dev eth0 nodad")
    ip("route add local 203.0.113.0/26 dev lo")
    ip("route add local fd00:2::/61 dev lo")
    // None of the host's own.
    ip("route add 198.51.100.0/24 dev eth0")
    ip("route add blackhole 192.0.2.0/24 table local")
    const netlink = Result.getOrThrow(openNetlink(libc(), NETLINK_ROUTE))
    const own = (...texts: ReadonlyArray<string>) => {
      const isLocal = Result.getOrThrow(readLocal(netlink, texts[0]?.includes(":") ? 6 : 4))
      return texts.filter((text) => isLocal(addressUnsafe(text).octets))
    }
    const ours = ["10.1.0.1", "127.0.0.1", "127.255.255.254", "203.0.113.0", "203.0.113.63"]
    assert.deepStrictEqual(
      own(...ours, "10.1.0.2", "10.1.0.255", "128.0.0.1", "203.0.113.64", "198.51.100.1", "192.0.2.1"),
      ours
    )
    const ours6 = ["::1", "fd00:1::1", "fd00:2::1", "fd00:2:0:7:ffff::"]
    // The kernel adds the route of an address of IPv6 a moment later.
    await untilEqual(() => own(...ours6, "::2", "fd00:1::2", "fd00:2:0:8::", "fd00:1:ffff::"), ours6)
    netlink.close()
  })
})

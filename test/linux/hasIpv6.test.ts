import { writeFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { hasIpv6 } from "../../adapters/linux/hasIpv6.ts"
import { describeInNamespace, ip } from "../lab/ThreadNamespace.ts"

describeInNamespace("a host without IPv6", () => {
  const disable = (name: string, value: "0" | "1") =>
    writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, value)

  it("has it disabled, and no interface with an address by a setting of its own", () => {
    assert.isTrue(hasIpv6())
    disable("all", "1")
    assert.isFalse(hasIpv6())
    disable("lo", "0")
    ip("address replace ::1/128 dev lo")
    assert.isTrue(hasIpv6())
    disable("all", "0")
    ip("address delete ::1/128 dev lo")
    assert.isTrue(hasIpv6())
  })
})

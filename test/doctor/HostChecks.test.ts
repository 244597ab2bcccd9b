import { writeFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { type Check, checkEngineFilter, hostChecks } from "../../adapters/doctor/HostChecks.ts"
import { describeInNamespace, run } from "../lab/ThreadNamespace.ts"
import { asNobody } from "./asNobody.ts"

const sysctl = (name: string, value: number) =>
  writeFileSync(`/proc/sys/net/${name.replaceAll(".", "/")}`, `${value}`)

const among = (checks: ReadonlyArray<Check>, name: string) => {
  const found = checks.find((check) => check.name === name)
  return [found?.status, found?.found, found?.remedy]
}

const check = (name: string) => among(hostChecks(), name)

describeInNamespace("the checks of a host", () => {
  it("want forwarding on, of each family", () => {
    const off = "off: redirected packets from outside do not reach a container"
    sysctl("ipv4.ip_forward", 0)
    assert.deepStrictEqual(check("IPv4 forwarding"), ["warn", off, "sysctl -w net.ipv4.ip_forward=1"])
    sysctl("ipv4.ip_forward", 1)
    assert.deepStrictEqual(check("IPv4 forwarding"), ["ok", "on", undefined])
    sysctl("ipv6.conf.all.forwarding", 0)
    assert.deepStrictEqual(check("IPv6"), ["warn", off, "sysctl -w net.ipv6.conf.all.forwarding=1"])
    sysctl("ipv6.conf.all.forwarding", 1)
    assert.deepStrictEqual(check("IPv6"), ["ok", "on", undefined])
  })

  it("want IPv6 enabled before all else of it", () => {
    sysctl("ipv6.conf.all.disable_ipv6", 1)
    assert.deepStrictEqual(check("IPv6"), ["warn", "disabled", "sysctl -w net.ipv6.conf.all.disable_ipv6=0"])
    sysctl("ipv6.conf.all.disable_ipv6", 0)
  })

  it("want conntrack to count bytes", () => {
    run(
      "nft -f -",
      "table inet t {\nchain in {\ntype filter hook input priority 0\nct state new counter\n}\n}\n"
    )
    sysctl("netfilter.nf_conntrack_acct", 0)
    const [status, found, remedy] = check("conntrack")
    assert.deepStrictEqual(
      [status, remedy],
      ["warn", "sysctl -w net.netfilter.nf_conntrack_acct=1, to see bytes per mapping"]
    )
    assert.match(found ?? "", /^\d+ of \d+ flows, bytes not counted$/)
    sysctl("netfilter.nf_conntrack_acct", 1)
    assert.strictEqual(check("conntrack")[0], "ok")
  })

  it("want root's rights, and a descriptor for each port", async () => {
    assert.strictEqual(check("privileges")[0], "ok")
    assert.strictEqual(check("nftables")[0], "ok")
    const found = (await asNobody("HostChecks", "hostChecks")) as ReadonlyArray<Check>
    const [status, , remedy] = among(found, "privileges")
    assert.deepStrictEqual(
      [status, remedy],
      [
        "warn",
        "run as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE, to redirect in the kernel"
      ]
    )
    const tables = among(found, "nftables")
    assert.deepStrictEqual([tables[0], tables[2]], ["warn", "run as root; load nf_tables"])
    assert.match(tables[1] ?? "", /^nftables v.*, but the kernel's tables can't be read: ./)
    assert.deepStrictEqual(among(found, "descriptors"), [
      "warn",
      "4096 descriptors, at most 4096; every published port takes one",
      "raise LimitNOFILE= or ulimit -Hn"
    ])
  })

  it("say how what is redirected passes an Engine's own filter", async () => {
    const filter = async () => {
      const { status, found, remedy } = await checkEngineFilter()
      return [status, found, remedy]
    }
    assert.deepStrictEqual(await filter(), ["ok", "none here", undefined])
    run("nft add table ip docker-bridges")
    assert.deepStrictEqual(await filter(), [
      "warn",
      "the Engine's firewall backend is nftables, which has no DOCKER-USER: it drops what others redirect",
      "start dockerd with --bridge-accept-fwmark=0x1000/0x1000, and portmapper with --accept-fwmark 0x1000/0x1000"
    ])
    run("iptables-nft -N DOCKER-USER")
    assert.deepStrictEqual(await filter(), [
      "ok",
      "DOCKER-USER is there (iptables-nft); serve --watch and watch put one rule in it",
      undefined
    ])
  })
}, ["iptables"])

/** Native tables of this file's namespace, as `nft` lists them. */
import { assert, it } from "@effect/vitest"
import { readRules } from "../../adapters/doctor/HostRules.ts"
import { describeInNamespace, run } from "../lab/ThreadNamespace.ts"
import { dropsIn } from "./published.ts"

const tablesOf = (text: string) => {
  run("nft -f -", `flush ruleset\n${text}`)
  const rules = readRules()
  if (typeof rules === "string") throw new Error(rules)
  return rules
}

const forward = (rules: string, more = "") =>
  dropsIn(
    tablesOf(`table inet mine {
      ${more}
      chain fw { type filter hook forward priority 0; policy accept
        ${rules}
      }
    }`).tables
  ).map((text) => text.replace(/^forward fw: /, ""))

describeInNamespace("drops in tables of nftables", () => {
  it("are rules for the backend, its bridge, its port or everything, and no rules for others", () => {
    for (const rule of [
      "drop",
      'oifname "docker0" ct state new reject with icmpx admin-prohibited',
      'iifname != "docker0" oifname "docker*" drop',
      "ip daddr 172.17.0.0/16 tcp dport { 22, 79-81 } drop",
      "ip daddr . tcp dport { 172.17.0.2 . 80, 172.17.0.3 . 81 } drop",
      "ct direction original ct status dnat drop",
      "ct original ip daddr 192.0.2.1 drop",
      "tcp flags & (fin | syn | rst | ack) == syn drop",
      "ct state vmap { established : accept, related : accept, new : drop }",
      "meta l4proto . th dport vmap { tcp . 80 : drop, udp . 53 : accept }",
      "ct state established accept",
      "tcp dport != { 22, 443 } ct state != established drop",
      "tcp dport < 1024 drop"
    ]) {
      const dropping = rule.includes("drop") || rule.includes("reject")
      assert.strictEqual(forward(rule).length, dropping ? 1 : 0, `${rule}: ${forward(rule)}`)
    }
    for (const rule of [
      'iifname "docker0" oifname "docker0" drop',
      "ip daddr 172.18.0.0/16 drop",
      "ip6 daddr ::/0 drop",
      "udp dport 80 drop",
      "tcp dport 8080 drop",
      "ct state invalid drop",
      "icmp type echo-request drop",
      "meta mark & 0xf != 0x0 drop",
      "fib daddr type local drop",
      "ip saddr { 203.0.113.7, 198.51.100.0/24 } drop",
      "limit rate over 10/second drop",
      "ether saddr 00:11:22:33:44:55 drop",
      "ip ttl < 2 drop"
    ])
      assert.deepStrictEqual(forward(rule), [], rule)
  })

  it("are found through named sets, verdict maps, jumps and marks, and named by their text", () => {
    assert.deepStrictEqual(
      forward(
        "oifname vmap @zones",
        `set closed { type inet_service; flags interval; elements = { 22, 70-90 } }
        map zones { type ifname : verdict; elements = { "docker0" : jump zone } }
        chain zone { meta mark set meta mark and 0xfffffff0 or 0x5; goto marked; }
        chain marked { meta mark & 0xf == 0x5 tcp dport @closed counter log prefix "x" drop comment "no"; }`
      ),
      [
        'forward marked: meta mark & 0x0000000f == 0x00000005 tcp dport @closed log prefix "x" drop comment "no"'
      ]
    )
  })

  it("are reported with their exemptions", () => {
    assert.deepStrictEqual(forward('ip saddr 10.0.0.0/8 accept\n oifname "docker0" ct state new drop'), [
      'oifname "docker0" ct state new drop | ip saddr 10.0.0.0/8 accept'
    ])
  })

  it("include policies", () => {
    const text = (rules: string) =>
      `table ip own {\nchain in {\ntype filter hook input priority 0; policy drop\n${rules}\n}\n}`
    const relayed = { traffic: "relayed" } as const
    assert.deepStrictEqual(dropsIn(tablesOf(text("")).tables, relayed), ["input in: policy drop"])
    assert.deepStrictEqual(
      dropsIn(tablesOf(text("ct state established accept; tcp dport 8080 accept")).tables, relayed),
      []
    )
    assert.deepStrictEqual(dropsIn(tablesOf(text("")).tables), [])
  })

  it("exclude the Engine's own for a port that it opened, or is yet to open", () => {
    const engine = (opened: string) =>
      tablesOf(`table ip docker-bridges {
        map jumps { type ifname : verdict; elements = { "docker0" : jump filter-forward-in__docker0 } }
        chain filter-FORWARD {
          type filter hook forward priority 0
          oifname vmap @jumps
        }
        chain filter-forward-in__docker0 {
          ct state established,related counter accept
          iifname "docker0" counter accept comment "ICC"
          ${opened}
          counter drop comment "UNPUBLISHED PORT DROP"
        }
      }`).tables
    assert.deepStrictEqual(dropsIn(engine("ip daddr 172.17.0.2 tcp dport 80 counter accept")), [])
    assert.deepStrictEqual(dropsIn(engine(""), { imagined: true }), [])
    assert.deepStrictEqual(dropsIn(engine("")), [
      'forward filter-forward-in__docker0: drop comment "UNPUBLISHED PORT DROP"'
    ])
  })
})

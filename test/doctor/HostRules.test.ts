import { assert, it } from "@effect/vitest"
import { readRules } from "../../adapters/doctor/HostRules.ts"
import { tableText } from "../../adapters/doctor/Tables.ts"
import { describeInNamespace, run } from "../lab/ThreadNamespace.ts"
import { asNobody } from "./asNobody.ts"
import { dropsIn } from "./published.ts"

const rulesAfter = (nft: string, ...commands: ReadonlyArray<string>) => {
  run("nft -f -", `flush ruleset\n${nft}`)
  for (const command of commands) run(command)
  const rules = readRules()
  if (typeof rules === "string") throw new Error(rules)
  return { ...rules, names: rules.tables.map(tableText) }
}

const forwarding = "chain fw {\ntype filter hook forward priority 0; policy drop\n}"

describeInNamespace("the rules of a host", () => {
  it("are those of every tool, once each, and of every table but ours", () => {
    const nft = ["portmapper", "portmapper-lock", "mine"].map(
      (name) => `table inet ${name} {\n${forwarding}\n}`
    )
    const { names, tables } = rulesAfter(
      nft.join("\n"),
      "iptables-nft -A FORWARD -m string --string x --algo bm -j DROP",
      "iptables-legacy -A INPUT -j DROP"
    )
    assert.deepStrictEqual(names, [
      "inet mine (nft)",
      "ip filter (iptables-nft)",
      "ip filter (iptables-legacy)"
    ])
    // As its own tool writes it, since nft can't decode it.
    assert.deepStrictEqual(
      tables[1]?.chains.get("FORWARD")?.rules.map(({ text }) => text),
      ['-A FORWARD -m string --string "x" --algo bm -j DROP']
    )
    run("iptables-legacy -F")
  })

  it("have the mark that our table sets", () => {
    const ours = `table inet portmapper {
        chain redirected { meta pkttype set host; ct label set 113; meta mark set meta mark and 0xffff0fff or 0x5000;
          fib daddr . iif oif exists ct label set 114; }
        chain guard { type filter hook forward priority 0; drop; }
      }`
    const rules = rulesAfter(
      `${ours}\ntable inet mine {
          chain fw {
            type filter hook forward priority 0; policy drop
            meta mark & 0xf000 == 0x5000 accept
            ct state established accept
          }
        }`
    )
    assert.strictEqual(rules.acceptMark, 0x5000)
    assert.deepStrictEqual(dropsIn(rules.tables, {}, rules.acceptMark), [])
    assert.deepStrictEqual(dropsIn(rules.tables), ["forward fw: policy drop"])
  })

  it("set no mark where our table sets none on all that it redirects", () => {
    assert.strictEqual(rulesAfter("table inet portmapper {\nchain redirected {\ncounter\n}\n}").acceptMark, 0)
    const among =
      "table inet portmapper {\nchain redirected {\ntcp dport 80 meta mark set 0x7\nmeta mark set 0x7 counter\n}\n}"
    assert.strictEqual(rulesAfter(among).acceptMark, 0)
    assert.strictEqual(rulesAfter("").acceptMark, 0)
  })

  it("are replaced by the reason where a user may not read them", async () => {
    run("nft -f -", "table inet mine {\n}")
    assert.match(`${await asNobody("HostRules", "readRules")}`, /^nft list tables: .*(not permitted|root)/i)
  })
}, ["iptables"])

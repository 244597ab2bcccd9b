/** The rules of this host, of every tool that can have put some there. Reads only, and has nothing loaded or made by it. */
import { spawnSync } from "node:child_process"
import type { Rules } from "./Drops.ts"
import { parseIptables } from "./IptablesRuleset.ts"
import { record } from "./NftFields.ts"
import { parseNft } from "./NftRuleset.ts"
import type { Table } from "./Ruleset.ts"

/** The rules, or why they can't be read. */
export const readRules = (ourTable = "portmapper"): Rules | string => {
  const json = run("nft", "-j", "list", "ruleset")
  const text = run("nft", "-a", "list", "ruleset")
  if (json.failed !== undefined && json.found) return `nft list ruleset: ${json.failed}`
  const iptables = saved("iptables-nft-save", "iptables-nft", "ip")
  const ip6tables = saved("ip6tables-nft-save", "iptables-nft", "ip6")
  // Of its own tables iptables knows more than nft does, which can't read every match of them.
  const own = new Set([...iptables, ...ip6tables].map(({ family, name }) => `${family} ${name}`))
  const nft = json.failed === undefined ? parseNft(json.output, text.output) : []
  const others = nft.filter(
    ({ family, name }) => !own.has(`${family} ${name}`) && !(family === "inet" && name === ourTable)
  )
  const legacy = [
    ...saved("iptables-legacy-save", "iptables-legacy", "ip"),
    ...saved("ip6tables-legacy-save", "iptables-legacy", "ip6")
  ]
  return {
    tables: [...others, ...iptables, ...ip6tables, ...legacy],
    acceptMark: json.failed === undefined ? acceptMarkOf(json.output, ourTable) : 0
  }
}

/** `iptables-save` shows the tables that are there; a kind that is not installed has none. */
const saved = (
  command: string,
  tool: "iptables-nft" | "iptables-legacy",
  family: "ip" | "ip6"
): ReadonlyArray<Table> => {
  const { output, failed } = run(command)
  return failed === undefined ? parseIptables(output, tool, family) : []
}

/** The mark that our own table puts on the packets it redirects. */
const acceptMarkOf = (json: string, ourTable: string): number => {
  const objects = (JSON.parse(json) as { readonly nftables: ReadonlyArray<unknown> }).nftables
  for (const object of objects) {
    const { family, table, chain, expr } = record(record(object)["rule"])
    if (family !== "inet" || table !== ourTable || chain !== "redirected" || !Array.isArray(expr)) continue
    if (expr.length !== 1) continue
    const { key, value } = record(record(expr[0])["mangle"])
    if (record(record(key)["meta"])["key"] !== "mark") continue
    const { "|": or, "^": xor } = record(value)
    const constant = (Array.isArray(or) ? or : Array.isArray(xor) ? xor : [])[1] ?? value
    if (typeof constant === "number") return constant
  }
  return 0
}

const places = ["/usr/sbin", "/sbin", "/usr/local/sbin"]

const run = (command: string, ...parameters: ReadonlyArray<string>) => {
  const { PATH = "" } = process.env
  const { error, status, stdout, stderr } = spawnSync(command, parameters, {
    encoding: "utf8",
    maxBuffer: 1 << 28,
    timeout: 20_000,
    env: { PATH: [PATH, ...places].join(":"), LC_ALL: "C" }
  })
  const found = error === undefined || !("code" in error) || error.code !== "ENOENT"
  const failed = error?.message ?? (status === 0 ? undefined : (stderr.trim().split("\n")[0] ?? "failed"))
  return { output: stdout ?? "", failed, found }
}

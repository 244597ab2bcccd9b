/**
 * The rules of this host, of every tool that can have added some. Reads only: loads nothing into the kernel and
 * creates nothing there.
 */
import { spawnSync } from "node:child_process"
import { usualPlaces } from "../linux/nft/NftCommand.ts"
import { jsonOf } from "../node/jsonOf.ts"
import type { Rules } from "./Drops.ts"
import { parseIptables } from "./Iptables.ts"
import { parseNft } from "./Nft.ts"
import { list, record, type Table } from "./Tables.ts"

/** The rules, or why they can't be read. */
export const readRules = (ourTable = "portmapper"): Rules | string => {
  const objects = readOthers(ourTable)
  if (typeof objects === "string") return objects
  const text = run("nft", "-a", "list", "ruleset")
  const iptables = saved("iptables-nft-save", "iptables-nft", "ip")
  const ip6tables = saved("ip6tables-nft-save", "iptables-nft", "ip6")
  // iptables lists its own tables more completely than nft, which can't decode every match of them.
  const own = new Set([...iptables, ...ip6tables].map(({ family, name }) => `${family} ${name}`))
  const others = parseNft(objects, text.output).filter(({ family, name }) => !own.has(`${family} ${name}`))
  const legacy = [
    ...saved("iptables-legacy-save", "iptables-legacy", "ip"),
    ...saved("ip6tables-legacy-save", "iptables-legacy", "ip6")
  ]
  return {
    tables: [...others, ...iptables, ...ip6tables, ...legacy],
    acceptMark: acceptMarkOf(ourTable)
  }
}

/**
 * The objects of every table but ours, or why they can't be read. Reads table by table: nft before 1.1 prints
 * broken JSON of a table that has one flag (a use after free), as ours has after its owner has exited.
 */
const readOthers = (ourTable: string): ReadonlyArray<unknown> | string => {
  const listed = run("nft", "list", "tables")
  if (!listed.found) return []
  if (listed.failed !== undefined) return `nft list tables: ${listed.failed}`
  const ours = new Set([ourTable, `${ourTable}-lock`].map((name) => `inet ${name}`))
  const objects: Array<unknown> = []
  for (const [, table = ""] of listed.output.matchAll(/^table (.+)$/gm)) {
    if (ours.has(table)) continue
    const some = objectsOf("table", ...table.split(" "))
    if (typeof some === "string") return `nft list table ${table}: ${some}`
    objects.push(...some)
  }
  return objects
}

/** The objects that `nft -j list` shows, or why it can't. */
const objectsOf = (...what: ReadonlyArray<string>): ReadonlyArray<unknown> | string => {
  const { output, failed } = run("nft", "-j", "list", ...what)
  if (failed !== undefined) return failed
  const value = jsonOf(output)
  return value === undefined ? "its output is not JSON" : list(record(value)["nftables"])
}

/** `iptables-save` lists the existing tables; a variant that is not installed has none. */
const saved = (
  command: string,
  tool: "iptables-nft" | "iptables-legacy",
  family: "ip" | "ip6"
): ReadonlyArray<Table> => {
  const { output, failed } = run(command)
  return failed === undefined ? parseIptables(output, tool, family) : []
}

/** The mark that our own table puts on the packets it redirects. */
const acceptMarkOf = (ourTable: string): number => {
  const objects = objectsOf("chain", "inet", ourTable, "redirected")
  if (typeof objects === "string") return 0
  for (const object of objects) {
    const [only, another] = list(record(record(object)["rule"])["expr"])
    if (another !== undefined) continue
    const { key, value } = record(record(only)["mangle"])
    if (record(record(key)["meta"])["key"] !== "mark") continue
    const { "|": or, "^": xor } = record(value)
    const constant = list(or ?? xor)[1] ?? value
    if (typeof constant === "number") return constant
  }
  return 0
}

/** Runs a tool of the host, which is seldom on the `PATH` of users other than root. */
export const run = (command: string, ...parameters: ReadonlyArray<string>) => {
  const { PATH = "" } = process.env
  const { error, status, stdout, stderr } = spawnSync(command, parameters, {
    encoding: "utf8",
    maxBuffer: 1 << 28,
    timeout: 20_000,
    env: { PATH: [PATH, ...usualPlaces].join(":"), LC_ALL: "C" }
  })
  const found = error === undefined || !("code" in error) || error.code !== "ENOENT"
  const failed = error?.message ?? (status === 0 ? undefined : (stderr.trim().split("\n")[0] ?? "failed"))
  return { output: stdout ?? "", failed, found }
}

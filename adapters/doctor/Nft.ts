/**
 * Parses tables of nftables as `nft -j list table` prints them; the text of a rule comes from `nft -a list
 * ruleset`, which prints the rule's handle after it.
 */
import { type Base, type Chain, isHook, type Json, list, type Rule, record, type Table } from "./Tables.ts"

export const parseNft = (listed: ReadonlyArray<unknown>, text: string): ReadonlyArray<Table> => {
  const objects = listed.map(record)
  const texts = ruleTexts(text)
  const of = (kind: string) => objects.flatMap((object) => (kind in object ? [record(object[kind])] : []))
  const sets = new Map(
    [...of("set"), ...of("map")].map((set) => [keyOf(set, set["name"]), list(set["elem"])])
  )
  const rules = Map.groupBy(of("rule"), (rule) => keyOf(rule, rule["chain"]))
  const chains = Map.groupBy(of("chain"), ({ family, table }) => `${family} ${table}`)
  const ruleOf = (rule: Json): Rule => {
    const { handle, chain, expr } = rule
    const words = texts.get(`${keyOf(rule, chain)} ${handle}`) ?? `rule with handle ${handle}`
    return { text: words, statements: list(expr).map(record).flatMap(withInner) }
  }
  const chainOf = (chain: Json): readonly [string, Chain] => {
    const name = String(chain["name"])
    return [name, { name, base: baseOf(chain), rules: (rules.get(keyOf(chain, name)) ?? []).map(ruleOf) }]
  }
  return of("table").flatMap(({ family, name }): ReadonlyArray<Table> => {
    if (family !== "ip" && family !== "ip6" && family !== "inet") return []
    const own = new Map((chains.get(`${family} ${name}`) ?? []).map(chainOf))
    const known = (set: string) => sets.get(`${family} ${name} ${set}`)
    return [{ tool: "nft", family, name: String(name), chains: own, sets: known }]
  })
}

const keyOf = ({ family, table }: Json, name: unknown): string => `${family} ${table} ${name}`

const baseOf = ({ hook, prio, policy }: Json): Base | undefined =>
  isHook(hook) ? { hook, priority: Number(prio), policy: policy === "drop" ? "drop" : "accept" } : undefined

/** A statement that changes a set contains statements for its elements, which belong to the rule as well. */
const withInner = (statement: Json): ReadonlyArray<Json> => {
  const changed = statement["set"] ?? statement["map"]
  return changed === undefined ? [statement] : list(record(changed)["stmt"]).map(record).flatMap(withInner)
}

/** By family, table, chain and handle. */
const ruleTexts = (text: string): ReadonlyMap<string, string> => {
  const texts = new Map<string, string>()
  let table = ""
  let chain: string | undefined
  for (const line of text.split("\n")) {
    const [, family, name] = /^table (\S+) (\S+) \{/.exec(line) ?? []
    if (family !== undefined) table = `${family} ${name}`
    const [, opened] = /^\tchain (\S+) \{/.exec(line) ?? []
    if (opened !== undefined) chain = opened
    if (line === "\t}") chain = undefined
    const [, words, handle] = /^\t\t(.*) # handle (\d+)$/.exec(line) ?? []
    if (chain !== undefined && words !== undefined)
      texts.set(
        `${table} ${chain} ${handle}`,
        words.replaceAll(/(^| )counter packets \d+ bytes \d+/g, "").trim()
      )
  }
  return texts
}

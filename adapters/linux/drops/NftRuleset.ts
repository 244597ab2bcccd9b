/**
 * Tables of nftables as `nft -j list table` shows them (libnftables-json(5)); the words for a rule come from the text of
 * `nft -a list ruleset`, where its handle stands behind it.
 */
import { fieldOf, holds, markOf, record, type Sets } from "./NftFields.ts"
import type { Hook } from "./Packet.ts"
import type { Base, Chain, Rule, Step, Table, Verdict } from "./Ruleset.ts"

export const parseNft = (listed: ReadonlyArray<unknown>, text: string): ReadonlyArray<Table> => {
  const objects = listed.map(record)
  const texts = ruleTexts(text)
  const of = (kind: string) =>
    objects.flatMap((object) => (object[kind] === undefined ? [] : [record(object[kind])]))
  const keyOf = (object: Record<string, unknown>, name: unknown) =>
    `${object["family"]} ${object["table"]} ${name}`
  const sets = new Map(
    [...of("set"), ...of("map")].map((set) => [
      keyOf(set, set["name"]),
      (set["elem"] ?? []) as ReadonlyArray<unknown>
    ])
  )
  const rules = Map.groupBy(of("rule"), (rule) => keyOf(rule, rule["chain"]))
  const chains = Map.groupBy(of("chain"), ({ family, table }) => `${family} ${table}`)

  return of("table").flatMap(({ family, name }): ReadonlyArray<Table> => {
    if (family !== "ip" && family !== "ip6" && family !== "inet") return []
    const known: Sets = (set) => sets.get(`${family} ${name} ${set}`)
    const own = (chains.get(`${family} ${name}`) ?? []).map((chain): readonly [string, Chain] => {
      const key = keyOf(chain, chain["name"])
      return [
        String(chain["name"]),
        {
          name: String(chain["name"]),
          base: baseOf(chain),
          rules: (rules.get(key) ?? []).map(({ handle, expr }): Rule => {
            const steps = ((expr ?? []) as ReadonlyArray<unknown>).flatMap((part) =>
              stepsOf(record(part), known)
            )
            return { text: texts.get(`${key} ${handle}`) ?? `rule with handle ${handle}`, steps }
          })
        }
      ]
    })
    return [{ tool: "nft", family, name: String(name), chains: new Map(own) }]
  })
}

const hooks: ReadonlySet<unknown> = new Set<Hook>(["prerouting", "input", "forward", "output", "postrouting"])

const baseOf = ({ hook, prio, policy }: Record<string, unknown>): Base | undefined =>
  hooks.has(hook)
    ? { hook: hook as Hook, priority: Number(prio), policy: policy === "drop" ? "drop" : "accept" }
    : undefined

const stepsOf = (statement: Record<string, unknown>, sets: Sets): ReadonlyArray<Step> => {
  const verdict = verdictOf(statement)
  if (verdict !== undefined) return [{ _tag: "Decide", verdict }]
  const [kind = ""] = Object.keys(statement)
  const inner = record(statement[kind])
  switch (kind) {
    case "match":
      return [
        {
          _tag: "Match",
          test: (packet) =>
            holds(fieldOf(inner["left"], packet), String(inner["op"]), inner["right"], packet, sets)
        }
      ]
    case "vmap":
      return [{ _tag: "Choose", cases: casesOf(inner["key"], inner["data"], sets) }]
    case "limit":
      return [{ _tag: "Match", test: () => (inner["inv"] === true ? "rarely" : "mostly") }]
    case "mangle":
      return record(record(inner["key"])["meta"])["key"] === "mark"
        ? [{ _tag: "Mark", mark: (packet) => markOf(inner["value"], packet) }]
        : []
    case "set":
    case "map":
      return ((inner["stmt"] ?? []) as ReadonlyArray<unknown>).flatMap((part) => stepsOf(record(part), sets))
    // These let the packet on, or do nothing to it.
    case "counter":
    case "log":
    case "comment":
    case "notrack":
    case "flow":
    case "ct helper":
    case "ct timeout":
    case "ct expectation":
    case "secmark":
    case "":
      return []
    default:
      return [{ _tag: "Match", test: () => "unknown" }]
  }
}

const verdictOf = (statement: Record<string, unknown>): Verdict | undefined => {
  const [kind = ""] = Object.keys(statement)
  switch (kind) {
    case "accept":
    // Who is asked may still drop it, but that is no rule's doing.
    case "queue":
    case "dnat":
    case "snat":
    case "masquerade":
    case "redirect":
    case "tproxy":
      return { _tag: "Accept" }
    case "drop":
    case "reject":
      return { _tag: "Drop" }
    case "return":
      return { _tag: "Return" }
    case "jump":
      return { _tag: "Jump", chain: String(record(statement["jump"])["target"]) }
    case "goto":
      return { _tag: "Goto", chain: String(record(statement["goto"])["target"]) }
    default:
      return undefined
  }
}

const casesOf = (key: unknown, data: unknown, sets: Sets): Extract<Step, { _tag: "Choose" }>["cases"] => {
  const elements =
    typeof data === "string"
      ? sets(data.replace(/^@/, ""))
      : (record(data)["set"] as ReadonlyArray<unknown> | undefined)
  return (elements ?? []).flatMap((element) => {
    const [value, outcome] = element as readonly [unknown, unknown]
    const verdict = verdictOf(record(outcome))
    if (verdict === undefined) return []
    const wrapped = record(value)["elem"]
    const wanted = wrapped === undefined ? value : record(wrapped)["val"]
    return [{ test: (packet) => holds(fieldOf(key, packet), "==", wanted, packet, sets), verdict }]
  })
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

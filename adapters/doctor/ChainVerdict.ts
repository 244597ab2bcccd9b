/** What one base chain does with a packet: whether it drops it, and by which rule. Pure. */
import { fieldOf, holds, keyOf, markOf } from "./Field.ts"
import { every, type Match, matches } from "./Match.ts"
import type { Packet } from "./Packet.ts"
import { type Chain, type Json, list, type Rule, record, type Sets, type Table } from "./Tables.ts"

export interface ChainVerdict {
  readonly verdict: "accept" | "drop"
  /** The chain that decided. */
  readonly chain: string
  /** `policy drop` if no rule decided. */
  readonly rule: string
  /** Rules that decide otherwise about special packets: those of one source, over a limit, and the like. */
  readonly exceptions: ReadonlyArray<string>
  /** As set by the rules that the packet passed. */
  readonly mark: number | undefined
}

interface Verdict {
  readonly kind: "accept" | "drop" | "return" | "jump" | "goto"
  /** The target of a jump or goto. */
  readonly chain: string
}

/** `isOpened` returns whether a chain is assumed to accept. */
export const chainVerdict = (
  table: Table,
  base: Chain,
  first: Packet,
  isOpened: (chain: string) => boolean
): ChainVerdict => {
  const exceptions: Array<string> = []
  let packet = first
  const decided = (verdict: ChainVerdict["verdict"], chain: Chain, rule: string): ChainVerdict => ({
    verdict,
    chain: chain.name,
    rule,
    exceptions,
    mark: packet.mark
  })

  /** `undefined` if it returned. */
  const through = (chain: Chain, depth: number): ChainVerdict | undefined => {
    if (isOpened(chain.name)) return decided("accept", chain, "")
    for (const rule of chain.rules) {
      const verdict = ruleVerdict(rule)
      if (verdict === undefined) continue
      if (verdict.kind === "accept" || verdict.kind === "drop") return decided(verdict.kind, chain, rule.text)
      if (verdict.kind === "return") return undefined
      const next = table.chains.get(verdict.chain)
      const found = next === undefined || depth > deepest ? undefined : through(next, depth + 1)
      if (found !== undefined || verdict.kind === "goto") return found
    }
    return undefined
  }

  const ruleVerdict = ({ text, statements }: Rule): Verdict | undefined => {
    let match: Match = "yes"
    for (const statement of statements) {
      for (const [also, verdict] of verdictsOf(statement, packet, table.sets)) {
        const both = every([match, also])
        if (isException(both, verdict)) exceptions.push(text)
        if (matches(both)) return verdict
      }
      match = every([match, matchOf(statement, packet, table.sets)])
      if (match === "no") return undefined
      const { key, value } = record(statement["mangle"])
      if (record(record(key)["meta"])["key"] === "mark" && matches(match))
        packet = { ...packet, mark: markOf(value, packet) }
    }
    return undefined
  }

  const policy = base.base?.policy ?? "accept"
  return through(base, 0) ?? decided(policy, base, `policy ${policy}`)
}

/** The kernel allows 16. */
const deepest = 32

const isException = (match: Match, { kind }: Verdict): boolean =>
  kind === "drop" ? match === "mostly" : match === "rarely" || match === "unknown"

/** Statements that let the packet continue, or do nothing to it. */
const passing = /^(counter|log|comment|notrack|flow|mangle|vmap|secmark|ct helper|ct timeout|ct expectation)$/

/** `assumed` is not a statement of nft's: it contains its own match. */
const matchOf = (statement: Json, packet: Packet, sets: Sets): Match => {
  const [kind = "counter"] = Object.keys(statement)
  const { left, op, right, inv } = record(statement[kind])
  if (kind === "match") return holds(fieldOf(left, packet), String(op), right, packet, sets)
  if (kind === "limit") return inv === true ? "rarely" : "mostly"
  if (kind === "assumed") return statement[kind] as Match
  return passing.test(kind) ? "yes" : "unknown"
}

/** The verdicts of a statement, each with its match. */
const verdictsOf = (
  statement: Json,
  packet: Packet,
  sets: Sets
): ReadonlyArray<readonly [Match, Verdict]> => {
  const verdict = verdictOf(statement)
  if (verdict !== undefined) return [["yes", verdict]]
  const { key, data } = record(statement["vmap"])
  const elements = typeof data === "string" ? sets(data.replace(/^@/, "")) : list(record(data)["set"])
  return (elements ?? []).flatMap((element) => {
    const [value, outcome] = list(element)
    const found = verdictOf(record(outcome))
    return found === undefined
      ? []
      : [[holds(fieldOf(key, packet), "==", keyOf(value), packet, sets), found] as const]
  })
}

/** A program that packets are queued for may still drop them, but no rule does. */
const accepting = /^(accept|queue|dnat|snat|masquerade|redirect|tproxy)$/

const verdictOf = (statement: Json): Verdict | undefined => {
  const [kind = ""] = Object.keys(statement)
  if (accepting.test(kind)) return { kind: "accept", chain: "" }
  if (kind === "drop" || kind === "reject") return { kind: "drop", chain: "" }
  if (kind === "return") return { kind: "return", chain: "" }
  if (kind !== "jump" && kind !== "goto") return undefined
  return { kind, chain: String(record(statement[kind])["target"]) }
}

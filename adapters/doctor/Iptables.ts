/** Parses tables as `iptables-save` prints them, of either variant of iptables. */
import { readOption } from "./IptablesOptions.ts"
import { type Base, isHook, type Json, type Rule, type Table } from "./Tables.ts"

export const parseIptables = (
  text: string,
  tool: "iptables-nft" | "iptables-legacy",
  family: "ip" | "ip6"
): ReadonlyArray<Table> => {
  const tables: Array<Table> = []
  let name = ""
  let chains = new Map<string, { name: string; base: Base | undefined; rules: Array<Rule> }>()
  for (const line of text.split("\n")) {
    if (line.startsWith("*")) {
      name = line.slice(1)
      chains = new Map()
    }
    const [, declared, policy = "-"] = /^:(\S+) (\S+)/.exec(line) ?? []
    if (declared !== undefined)
      chains.set(declared, { name: declared, base: baseOf(name, declared, policy), rules: [] })
    const [, chain = "", rest = ""] = /^-A (\S+) ?(.*)$/.exec(line) ?? []
    chains.get(chain)?.rules.push({ text: line, statements: statementsOf(wordsOf(rest), family) })
    if (line === "COMMIT") tables.push({ tool, family, name, chains, sets: () => undefined })
  }
  return tables
}

/** The priorities of the built-in chains. Without nat, whose chains drop nothing. */
const priorities: Readonly<Record<string, number>> = { raw: -300, mangle: -150, filter: 0, security: 50 }

const baseOf = (table: string, chain: string, policy: string): Base | undefined => {
  const priority = priorities[table]
  const hook = chain.toLowerCase()
  if (policy === "-" || priority === undefined || !isHook(hook)) return undefined
  return { hook, priority, policy: policy === "DROP" ? "drop" : "accept" }
}

const statementsOf = (words: ReadonlyArray<string>, family: "ip" | "ip6"): ReadonlyArray<Json> => {
  const statements: Array<Json> = []
  let match = ""
  for (let at = 0; at < words.length; ) {
    const [word, value = ""] = words.slice(at, at + 2)
    if (word === "-g") return [...statements, { goto: { target: value } }]
    if (word === "-j") return [...statements, ...targetOf(value, words.slice(at + 2))]
    if (word === "-m") {
      match = value
      at += 2
      // `-m socket` matches without any option.
      if (match === "socket") statements.push({ assumed: "unknown" })
    } else {
      const { statement, next } = readOption(words, at, match, family)
      statements.push(statement)
      at = next
    }
  }
  return statements
}

/** Targets that let the packet continue. */
const passing =
  /^(LOG|NFLOG|ULOG|AUDIT|TRACE|SET|TCPMSS|TCPOPTSTRIP|DSCP|TOS|TTL|HL|ECN|CHECKSUM|CLASSIFY|CT|NOTRACK|TEE)$/

const verdicts: Readonly<Record<string, string>> = {
  ACCEPT: "accept",
  QUEUE: "queue",
  NFQUEUE: "queue",
  DROP: "drop",
  REJECT: "reject",
  TARPIT: "drop",
  RETURN: "return"
}

const targetOf = (target: string, words: ReadonlyArray<string>): ReadonlyArray<Json> => {
  const verdict = verdicts[target]
  if (verdict !== undefined) return [{ [verdict]: null }]
  if (passing.test(target)) return []
  if (target === "MARK") return [markSet(words)]
  if (target === "CONNMARK") return words.includes("--restore-mark") ? [setMark("what the flow has")] : []
  return [{ jump: { target } }]
}

const mark = { meta: { key: "mark" } }
const setMark = (value: unknown): Json => ({ mangle: { key: mark, value } })

/** `--set-xmark VALUE/MASK` clears the mask's bits and flips the value's. */
const markSet = ([option, text = ""]: ReadonlyArray<string>): Json => {
  const [value = 0, mask = 0xffff_ffff] = text.split("/").map(Number)
  if (option !== "--set-xmark") return setMark(option)
  return setMark(mask === 0xffff_ffff ? value >>> 0 : { "^": [{ "&": [mark, ~mask] }, value] })
}

/** Spaces separate words; a quoted word may contain some. */
const wordsOf = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, plain]) =>
    quoted === undefined ? (plain ?? "") : quoted.replaceAll(/\\(.)/g, "$1")
  )

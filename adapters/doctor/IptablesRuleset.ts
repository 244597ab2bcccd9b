/** Tables as `iptables-save` prints them, of either kind of iptables. */
import { readOption } from "./IptablesMatches.ts"
import type { Hook } from "./Packet.ts"
import type { Base, Chain, Rule, Step, Table, Verdict } from "./Tables.ts"

export const parseIptables = (
  text: string,
  tool: "iptables-nft" | "iptables-legacy",
  family: "ip" | "ip6"
): ReadonlyArray<Table> => {
  const tables: Array<Table> = []
  let name = ""
  let chains = new Map<string, { base: Base | undefined; rules: Array<Rule> }>()
  for (const line of text.split("\n")) {
    if (line.startsWith("*")) {
      name = line.slice(1)
      chains = new Map()
    }
    const [, declared, policy] = /^:(\S+) (\S+)/.exec(line) ?? []
    if (declared !== undefined)
      chains.set(declared, { base: baseOf(name, declared, policy ?? "-"), rules: [] })
    const [, chain, rest] = /^-A (\S+) ?(.*)$/.exec(line) ?? []
    if (chain !== undefined)
      chains.get(chain)?.rules.push({ text: line, steps: stepsOf(wordsOf(rest ?? "")) })
    if (line === "COMMIT")
      tables.push({
        tool,
        family,
        name,
        chains: new Map(
          [...chains].map(([key, { base, rules }]): [string, Chain] => [key, { name: key, base, rules }])
        )
      })
  }
  return tables
}

/** Where the kernel calls the built-in chains. What nat chains do is no dropping. */
const priorities: Readonly<Record<string, number>> = { raw: -300, mangle: -150, filter: 0, security: 50 }
const hooks: ReadonlySet<string> = new Set<Hook>(["prerouting", "input", "forward", "output", "postrouting"])

const baseOf = (table: string, chain: string, policy: string): Base | undefined => {
  const priority = priorities[table]
  const hook = chain.toLowerCase()
  if (policy === "-" || priority === undefined || !hooks.has(hook)) return undefined
  return { hook: hook as Hook, priority, policy: policy === "DROP" ? "drop" : "accept" }
}

const stepsOf = (words: ReadonlyArray<string>): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  let match = ""
  for (let at = 0; at < words.length; ) {
    const word = words[at] ?? ""
    if (word === "-m") {
      match = words[at + 1] ?? ""
      at += 2
      // Its options say whether it wants the way back to be missing.
      if (match === "socket") steps.push({ _tag: "Match", test: () => "unknown" })
    } else if (word === "-j" || word === "-g") {
      return [...steps, ...targetOf(words[at + 1] ?? "", word === "-g", words.slice(at + 2))]
    } else {
      const { test, read } = readOption(words, at, match)
      steps.push({ _tag: "Match", test })
      at += read
    }
  }
  return steps
}

const targetOf = (target: string, goto: boolean, words: ReadonlyArray<string>): ReadonlyArray<Step> => {
  const decide = (verdict: Verdict): ReadonlyArray<Step> => [{ _tag: "Decide", verdict }]
  if (goto) return decide({ _tag: "Goto", chain: target })
  switch (target) {
    case "ACCEPT":
    // Who is asked may still drop it, but that is no rule's doing.
    case "QUEUE":
    case "NFQUEUE":
      return decide({ _tag: "Accept" })
    case "DROP":
    case "REJECT":
    case "TARPIT":
      return decide({ _tag: "Drop" })
    case "RETURN":
      return decide({ _tag: "Return" })
    case "MARK":
      return [{ _tag: "Mark", mark: ({ mark }) => markSet(mark, words) }]
    case "LOG":
    case "NFLOG":
    case "ULOG":
    case "AUDIT":
    case "TRACE":
    case "SET":
    case "TCPMSS":
    case "TCPOPTSTRIP":
    case "DSCP":
    case "TOS":
    case "TTL":
    case "HL":
    case "ECN":
    case "CHECKSUM":
    case "CLASSIFY":
    case "CT":
    case "NOTRACK":
    case "TEE":
      return []
    case "CONNMARK":
      return words.includes("--restore-mark") ? [{ _tag: "Mark", mark: () => undefined }] : []
    default:
      return decide({ _tag: "Jump", chain: target })
  }
}

/** `--set-xmark VALUE/MASK` clears the mask's bits and flips the value's. */
const markSet = (mark: number | undefined, words: ReadonlyArray<string>): number | undefined => {
  const [option, text = ""] = words
  const [value = 0, mask = 0xffff_ffff] = text.split("/").map(Number)
  if (option !== "--set-xmark") return undefined
  if (mask === 0xffff_ffff) return value >>> 0
  return mark === undefined ? undefined : ((mark & ~mask) ^ value) >>> 0
}

/** Words are separated by spaces; one in quotes may hold some. */
const wordsOf = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, plain]) =>
    quoted === undefined ? (plain ?? "") : quoted.replaceAll(/\\(.)/g, "$1")
  )

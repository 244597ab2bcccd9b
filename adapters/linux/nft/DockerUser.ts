/**
 * One rule in `DOCKER-USER`, the chain that an Engine with the iptables backend sends forwarded packets through
 * first: it accepts the packets that our table redirected, known by their mark, for all ports at once. The chain
 * belongs to the Engine and its user; only the rule with our comment is ours. It comes last, so that the user's
 * drops take effect.
 *
 * Source: docs.docker.com/engine/network/packet-filtering-firewalls; iptables(8), iptables-extensions(8).
 */
import { execFile } from "node:child_process"
import { Effect } from "effect"
import { readText } from "../../node/FileText.ts"
import { findCommand, usualPlaces } from "./NftCommand.ts"
import { type AcceptMark, markText } from "./Ruleset.ts"

/** For `serve --watch` without an explicit mark: a bit that no well-known network software uses for itself. */
export const defaultMark: AcceptMark = { mark: 0x1000, mask: 0x1000 }

export interface AcceptRuleState {
  /** The commands in whose tables the chain exists. */
  readonly chains: ReadonlyArray<string>
  /** Those of them in which the rule was added, restored, or moved to its place. */
  readonly changed: ReadonlyArray<string>
  /** The failures, each with its command. */
  readonly failures: ReadonlyArray<string>
}

/** Adds the rule where it is missing. Runs a child process for each kind of table on this host. */
export const keepAccepted = (mark: AcceptMark): Effect.Effect<AcceptRuleState> =>
  Effect.promise(async () => {
    const kept = { chains: [] as Array<string>, changed: [] as Array<string>, failures: [] as Array<string> }
    for (const command of commands()) {
      try {
        const rules = await rulesOf(command)
        if (rules === undefined) continue
        kept.chains.push(command)
        const wanted = ruleFor(mark)
        const ours = rules.filter(isOurs)
        if (ours.length === 1 && standsLast(rules, wanted)) continue
        const end = rules.at(-1) === "-j RETURN" ? rules.length : rules.length + 1
        await run(command, ["-I", chain, `${end}`, ...wanted.split(" ")])
        // The new rule is the last of its kind: `-D` deletes the first.
        for (const rule of ours) await run(command, ["-D", chain, ...rule.split(" ")])
        kept.changed.push(command)
      } catch (error) {
        kept.failures.push((error as Error).message)
      }
    }
    return kept
  })

/**
 * Deletes the rule, whatever its mark. Returns whether there was one; continues after an error, and returns all
 * errors.
 */
export const removeAccepted: Effect.Effect<boolean, { readonly message: string }> = Effect.flatMap(
  Effect.promise(async () => {
    let removed = false
    const failures: Array<string> = []
    for (const command of commands()) {
      try {
        for (const rule of (await rulesOf(command))?.filter(isOurs) ?? []) {
          await run(command, ["-D", chain, ...rule.split(" ")])
          removed = true
        }
      } catch (error) {
        failures.push((error as Error).message)
      }
    }
    return { removed, failures }
  }),
  ({ removed, failures }) =>
    failures.length === 0 ? Effect.succeed(removed) : Effect.fail({ message: failures.join("; ") })
)

/** The commands in whose tables `DOCKER-USER` exists now, and whether it has our rule. Changes nothing. */
export const findChains = async (): Promise<
  ReadonlyArray<{ readonly command: string; readonly accepts: boolean }>
> => {
  const found: Array<{ readonly command: string; readonly accepts: boolean }> = []
  for (const command of commands()) {
    const rules = await rulesOf(command).catch(() => undefined)
    if (rules !== undefined) found.push({ command, accepts: rules.some(isOurs) })
  }
  return found
}

const chain = "DOCKER-USER"

/** One word, so that the text of a rule splits into its arguments. */
const comment = "portmapper"

/** As `iptables -S` prints it. It also matches that the destination was translated: any program may set a mark. */
const ruleFor = (mark: AcceptMark): string =>
  `-m mark --mark ${markText(mark)} -m conntrack --ctstate DNAT -m comment --comment ${comment} -j ACCEPT`

const isOurs = (rule: string): boolean => rule.includes(`--comment ${comment} `)

/** Last except for Docker's own RETURN, which an Engine before 28 puts at the end. */
const standsLast = (rules: ReadonlyArray<string>, wanted: string): boolean =>
  rules.at(-1) === wanted || (rules.at(-1) === "-j RETURN" && rules.at(-2) === wanted)

/** The chain's rules without its name; `undefined` if the chain does not exist. */
const rulesOf = async (command: string): Promise<ReadonlyArray<string> | undefined> => {
  try {
    const text = await run(command, ["-S", chain])
    return text
      .split("\n")
      .filter((line) => line.startsWith(`-A ${chain} `))
      .map((line) => line.slice(`-A ${chain} `.length).trim())
  } catch (error) {
    if (/No chain|does not exist|doesn't exist|No such file|incompatible/i.test((error as Error).message))
      return undefined
    throw error
  }
}

/**
 * The commands for each kind of table on this host. The legacy command creates the tables that it lists, so it runs
 * only where they exist already; where neither variant has its own name, there is only one command.
 */
const commands = (): ReadonlyArray<string> =>
  [
    { command: "iptables", names: "/proc/net/ip_tables_names" },
    { command: "ip6tables", names: "/proc/net/ip6_tables_names" }
  ].flatMap(({ command, names }) => {
    const hasTable = /^filter$/m.test(readText(names) ?? "")
    const legacy = hasTable && isInstalled(`${command}-legacy`) ? [`${command}-legacy`] : []
    if (isInstalled(`${command}-nft`)) return [`${command}-nft`, ...legacy]
    return legacy.length > 0 ? legacy : isInstalled(command) ? [command] : []
  })

const isInstalled = (command: string): boolean => findCommand(command) !== undefined

const run = (command: string, args: ReadonlyArray<string>): Promise<string> =>
  new Promise((resolve, reject) => {
    const env = { LC_ALL: "C", PATH: `${process.env["PATH"] ?? ""}:${usualPlaces.join(":")}` }
    execFile(command, ["-w", "5", ...args], { env, timeout: 10_000 }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout)
      const words = stderr.trim().split("\n")[0] || error.message
      reject(new Error(`${command}: ${words.replace(/^\S+ v[^:]*: /, "")}`))
    })
  })

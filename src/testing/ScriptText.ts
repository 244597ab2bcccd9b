/** A failed run for readers: as a program to run, and as its calls, one JSON-RPC message a line. */
import type { Unexplained } from "./Concurrent.ts"
import type { Found } from "./Explore.ts"
import type { Violation } from "./Harness.ts"
import type { ModelHost } from "./Model.ts"
import { rpcText } from "./RemoteTargets.ts"
import type { Script } from "./Script.ts"

/** A module for `node`, in a checkout; `entry` is the module it imports. */
export const asTypeScript = (
  { seed, script, violation }: Found,
  host: ModelHost,
  entry = "portmapper/testing"
): string => `// Seed ${seed}. Rule ${violation.rule}: ${oneLine(violation.why)}
import { memoryTarget, type ModelHost, run, type Script, violationText } from ${JSON.stringify(entry)}

const host: ModelHost = ${literal(host)}
const script: Script = [
${script.map((step) => `  ${literal(step)}`).join(",\n")}
]
const violation = run(script, host, memoryTarget(host))
console.log(violation === undefined ? "nothing is wrong" : violationText(violation, script))
process.exitCode = violation === undefined ? 0 : 1
`

/** Input for `portmapper rpc --memory`. A message can't carry a fate, so `fate` stands beside it. */
export const asJsonRpc = ({ calls }: Pick<Violation, "calls">): string =>
  calls.map(({ call, fate }, index) => rpcText(call, index + 1, fate)).join("\n")

/** The command that replies to these lines as this host would, as far as its options can say. */
export const rpcCommand = ({ capabilities, ephemeral: { range } }: ModelHost): string =>
  [
    "portmapper rpc --memory",
    ...["--mode", capabilities.defaultMode, "--ephemeral", `${range.first}-${range.last}`],
    ...(capabilities.marksAccepted ? ["--accept-fwmark", "0x1/0x1"] : []),
    ...(capabilities.shares === undefined ? [] : ["--shares", capabilities.shares.join(",")])
  ].join(" ")

/** The violation, and every call up to it with its outcome. */
export const violationText = ({ step, rule, why, calls }: Violation, script: Script): string =>
  [
    `${step < script.length ? `step ${step + 1} of ${script.length}` : "unmapping all at the end"} broke rule ${rule}: ${why}`,
    ...calls.flatMap(({ call, fate, ended: { outcome, at } }, index) => [
      rpcText(call, index + 1, fate),
      `  -> ${json(outcome)}${at === undefined ? "" : `, struck at ${at}`}`
    ])
  ].join("\n")

/** The whole report of a sequential run. */
export const foundText = (found: Found, host: ModelHost, entry?: string): string =>
  [
    violationText(found.violation, found.script),
    "",
    `Replay with PORTMAPPER_SEED=${found.seed}; or send the lines above that begin with { to: ${rpcCommand(host)}; or run:`,
    "",
    asTypeScript(found, host, entry)
  ].join("\n")

/** The whole report of concurrent clients. */
export const unexplainedText = ({ seed, interleaving, history, why }: Unexplained): string =>
  [
    why,
    `replay with PORTMAPPER_SEED=${seed}: runTogether(${json(interleaving)}, host, memoryTarget(host))`,
    ...history.map((each, index) => {
      const when = `[${each.from}..${each.to}]`
      if ("lost" in each) return `${when} the answer to call ${each.lost + 1} is lost`
      return [`${when} ${rpcText(each.call, index + 1)}`, `  -> ${json(each.ended.outcome)}`].join("\n")
    })
  ].join("\n")

const oneLine = (text: string): string => text.replaceAll(/[\r\n\u2028\u2029]+/g, " ")

/** Like JSON, but writes properties that are `undefined`. */
const literal = (value: unknown): string =>
  json(value, (each) => (each === undefined ? "\u0000" : each)).replaceAll('"\\u0000"', "undefined")

const json = (value: unknown, change = (each: unknown) => each): string =>
  JSON.stringify(value, (_, each) => change(each)) ?? "null"

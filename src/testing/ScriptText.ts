/** A run that went wrong, for people: as a program to run, and as the calls that were made, one JSON-RPC message a line. */
import type { Unexplained } from "./Concurrent.ts"
import type { Found } from "./Explore.ts"
import type { Violation } from "./Harness.ts"
import type { ModelHost } from "./Model.ts"
import type { Call } from "./Target.ts"

/** A module for `node`, in a checkout; `entry` is what it imports. */
export const asTypeScript = (
  { seed, script, violation }: Found,
  host: ModelHost,
  entry = "portmapper/testing"
): string => `// Seed ${seed}. Rule ${violation.rule}: ${violation.why}
import { memoryTarget, run, type ModelHost, type Script } from ${JSON.stringify(entry)}

const host: ModelHost = ${json(host)}
const script: Script = [
${script.map((step) => `  ${json(step)}`).join(",\n")}
]
console.log(run(script, host, memoryTarget(host)))
`

/** What `portmapper rpc --memory` reads. A fate, which no message can tell, stands beside it as `fate`. */
export const asJsonRpc = ({ calls }: Pick<Violation, "calls">): string =>
  calls.map(({ call, fate }, index) => rpcLine(call, index + 1, fate)).join("\n")

/** The whole report of a sequential run. */
export const foundText = (found: Found, host: ModelHost, entry?: string): string =>
  [
    `step ${found.violation.step + 1} of ${found.script.length} broke rule ${found.violation.rule}: ${found.violation.why}`,
    `replay with PORTMAPPER_SEED=${found.seed}, or run:`,
    "",
    asTypeScript(found, host, entry),
    "The calls, as JSON-RPC, and what they came to:",
    ...found.violation.calls.flatMap(({ call, fate, ended }, index) => [
      rpcLine(call, index + 1, fate),
      `  -> ${json(ended.outcome)}`
    ])
  ].join("\n")

/** The whole report of clients that ran at once. */
export const unexplainedText = ({ seed, interleaving, history, why }: Unexplained): string =>
  [
    why,
    `replay with PORTMAPPER_SEED=${seed}: runTogether(${json(interleaving)}, host, memoryTarget(host))`,
    ...history.map((each, index) => {
      const when = `[${each.from}..${each.to}]`
      if ("lost" in each) return `${when} the answer to call ${each.lost + 1} is lost`
      return [`${when} ${rpcLine(each.call, index + 1, undefined)}`, `  -> ${json(each.ended.outcome)}`].join(
        "\n"
      )
    })
  ].join("\n")

const rpcLine = ({ method, value, owner }: Call, id: number, fate: unknown): string => {
  const named = typeof value === "object" && value !== null && !Array.isArray(value) && owner !== "engine"
  const params = value === undefined ? undefined : named ? { ...value, Owner: owner } : value
  return json({ jsonrpc: "2.0", id, method, params, fate })
}

const json = (value: unknown): string => JSON.stringify(value) ?? "null"

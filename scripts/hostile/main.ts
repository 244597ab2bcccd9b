/**
 * `npm run hostile [-- NAME…]`: replays known attacks against a real plugin, each in its own network namespaces,
 * and prints a line each: whether the defence held. NAME selects those whose name begins with it. Needs root,
 * nftables and iproute2. Exits with status 1 if one did not hold.
 */
import { Cause, Effect, Exit } from "effect"
import { attacks } from "../../test/hostile/attacks.ts"
import { labNeeds, lacking, needsText } from "../../test/lab/Capabilities.ts"

const names = process.argv.slice(2)
const wanted = attacks.filter(
  ({ name }) => names.length === 0 || names.some((start) => name.startsWith(start))
)
if (names.some((start) => !attacks.some(({ name }) => name.startsWith(start)))) {
  process.stderr.write(`hostile: expected ${attacks.map(({ name }) => name).join(", ")}\n`)
  process.exit(2)
}
const lacks = lacking(labNeeds)
if (lacks.length > 0) {
  process.stderr.write(`hostile: ${needsText(lacks)}\n`)
  process.exit(1)
}

let wrong = 0
for (const { name, attack, holds, run } of wanted) {
  const began = performance.now()
  const notes: Array<string> = []
  const exit = await Effect.runPromiseExit(Effect.scoped(run((text) => notes.push(text))))
  const through = Exit.isSuccess(exit) ? exit.value : [String(Cause.squash(exit.cause))]
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  const held = through.length === 0
  console.log(
    `${held ? "held    " : "NOT HELD"} ${name}: ${[`${attack}: ${holds}`, ...notes].join("; ")} (${seconds} s)`
  )
  for (const line of through.slice(0, 10)) console.log(`           ${line}`)
  if (through.length > 10) console.log(`           and ${through.length - 10} more`)
  if (!held) wrong++
}
console.log(
  wrong === 0 ? `all ${wanted.length} attacks held off` : `${wrong} of ${wanted.length} attacks got through`
)
process.exit(wrong === 0 ? 0 : 1)

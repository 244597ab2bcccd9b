/**
 * Searches all hosts in turn, for as many seconds as the first argument says or until it finds a fault; then prints
 * it and exits 1. `PORTMAPPER_SEED` sets the first seed. It counts seconds of processor time, so that a busy machine
 * searches as long as an idle one.
 */
import * as Path from "node:path"
import {
  explore,
  exploreTogether,
  foundText,
  memoryTarget,
  unexplainedText
} from "../../src/testing/index.ts"
import { hosts } from "./hosts.ts"
import { seed } from "./seed.ts"

const seconds = Number(process.argv[2] ?? 60)
const runs = 100
const entry = Path.resolve(import.meta.dirname, "../../src/testing/index.ts")
let scripts = 0

const spentSeconds = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

search: for (let round = 0; ; round++)
  for (const [name, host] of Object.entries(hosts)) {
    if (spentSeconds() >= seconds) break search
    const options = { seed: (seed + round) | 0, runs, host, target: () => memoryTarget(host) }
    const found = explore(options)
    const together = found === undefined && round % 2 === 0 ? exploreTogether(options) : undefined
    scripts += round % 2 === 0 ? 2 * runs : runs
    if (found === undefined && together === undefined) continue
    console.log(`on a host of ${name}, after ${spentSeconds().toFixed(1)} s:`)
    if (found !== undefined) console.log(foundText(found, host, entry))
    if (together !== undefined) console.log(unexplainedText(together))
    process.exit(1)
  }

const spent = spentSeconds()
console.log(
  `nothing found from seed ${seed}: ${scripts} runs in ${spent.toFixed(0)} s of a processor, ${(scripts / spent).toFixed(0)} a second`
)

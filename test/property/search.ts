/**
 * Searches all hosts, round and round, for as many seconds as the first argument says or until something is found; then
 * prints it and ends with status 1. `PORTMAPPER_SEED` names the seed to begin with.
 */
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
const began = performance.now()
let scripts = 0

search: for (let round = 0; ; round++)
  for (const [name, host] of Object.entries(hosts)) {
    if (performance.now() - began >= seconds * 1000) break search
    const options = { seed: (seed + round) | 0, runs, host, target: () => memoryTarget(host) }
    const found = explore(options)
    const together = found === undefined && round % 2 === 0 ? exploreTogether(options) : undefined
    scripts += round % 2 === 0 ? 2 * runs : runs
    if (found === undefined && together === undefined) continue
    console.log(`on a host of ${name}, after ${((performance.now() - began) / 1000).toFixed(1)} s:`)
    if (found !== undefined) console.log(foundText(found, host))
    if (together !== undefined) console.log(unexplainedText(together))
    process.exit(1)
  }

const elapsed = (performance.now() - began) / 1000
console.log(
  `nothing found from seed ${seed}: ${scripts} runs in ${elapsed.toFixed(0)} s, ${(scripts / elapsed).toFixed(0)} a second`
)

/**
 * Simulates clusters, for as many seconds of processor time as the first argument says or until something is wrong;
 * then prints it and exits 1. `PORTMAPPER_SEED` sets the first seed.
 */
import { simulate } from "../../src/testing/simulation/Simulation.ts"
import { seed } from "./seed.ts"

const seconds = Number(process.argv[2] ?? 60)
const hosts = 3
let clusters = 0

const spentSeconds = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

while (spentSeconds() < seconds) {
  const { broken, events } = simulate({ seed: seed + clusters++, hosts })
  if (broken === undefined) continue
  console.log(`on a cluster of ${hosts} hosts, after ${spentSeconds().toFixed(1)} s:`)
  console.log(events.join("\n"))
  console.log(`broke rule ${broken.rule}: ${broken.text}`)
  process.exit(1)
}
console.log(
  `nothing found from seed ${seed}: ${clusters} clusters in ${spentSeconds().toFixed(0)} s of a processor`
)

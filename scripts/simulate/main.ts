/**
 * `npm run simulate -- [--hosts N] [--seed S] [--seconds T]`: simulates one cluster after the other, from seed S on, on
 * all processors for T seconds. With `--events` it simulates the one of that seed and prints its events. Exits with
 * status 1 if anything is wrong, and prints the line that shows it again.
 */
import { randomInt } from "node:crypto"
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import { Worker } from "node:worker_threads"
import { faultPairs, type Simulated, simulate } from "../../src/testing/simulation/Simulation.ts"

const options = {
  hosts: { type: "string", default: "3" },
  seed: { type: "string", default: String(randomInt(2 ** 31)) },
  seconds: { type: "string", default: "60" },
  events: { type: "boolean", default: false }
} as const

const given = () => {
  try {
    const { hosts, seed, seconds, events } = parseArgs({ options }).values
    return {
      events,
      hosts: numberIn("--hosts", hosts, 1, 26),
      seed: numberIn("--seed", seed, 0, 2 ** 32 - 1),
      seconds: numberIn("--seconds", seconds, 1, 86_400)
    }
  } catch (error) {
    process.stderr.write(`simulate: ${(error as Error).message}\n`)
    return process.exit(2)
  }
}

function numberIn(option: string, text: string, least: number, most: number): number {
  const number = Number(text)
  if (!/^\d+$/.test(text) || number < least || number > most)
    throw new Error(`${option} ${text}: must be a whole number, ${least} to ${most}`)
  return number
}

const { hosts, seed, seconds, events } = given()
const total = { clusters: 0, faults: 0, simulatedMillis: 0 }
const struck = new Map<string, number>()
const begunMillis = Date.now()

const count = (simulated: Simulated): void => {
  total.clusters++
  total.faults += simulated.faults
  total.simulatedMillis += simulated.simulatedMillis
  for (const [pair, times] of simulated.struck) struck.set(pair, (struck.get(pair) ?? 0) + times)
  if (events || simulated.broken !== undefined) for (const event of simulated.events) console.log(event)
  if (simulated.broken === undefined) return
  const { rule, text } = simulated.broken
  console.log(`broke rule ${rule}, after ${((Date.now() - begunMillis) / 1000).toFixed(1)} s: ${text}`)
  console.log(`again: npm run simulate -- --hosts ${hosts} --seed ${simulated.seed} --events`)
  process.exitCode = 1
}

const simulateAll = (): Promise<unknown> => {
  const step = availableParallelism()
  const workers = Array.from(
    { length: step },
    (_, index) =>
      new Worker(new URL("worker.ts", import.meta.url), {
        workerData: { first: seed + index, step, hosts, endMillis: begunMillis + seconds * 1000 }
      })
  )
  return Promise.all(
    workers.map(
      (worker) =>
        new Promise<void>((resolve, reject) => {
          worker.on("message", (simulated: Simulated) => {
            count(simulated)
            if (simulated.broken !== undefined) for (const each of workers) void each.terminate()
          })
          worker.on("error", reject)
          worker.on("exit", () => resolve())
        })
    )
  )
}

if (events) count(simulate({ seed, hosts }))
else await simulateAll()

const spent = (Date.now() - begunMillis) / 1000
const missing = faultPairs.filter((pair) => !struck.has(pair))
console.log(
  `${hosts} hosts from seed ${seed}: ${total.clusters} clusters, ${(total.simulatedMillis / 3_600_000).toFixed(1)} simulated hours, ` +
    `${total.faults} faults in ${spent.toFixed(0)} s, ${(total.faults / spent).toFixed(0)} a second`
)
console.log(`${faultPairs.length - missing.length} of ${faultPairs.length} pairs of fault and step`)
if (!events && missing.length > 0) console.log(`without: ${missing.join(", ")}`)

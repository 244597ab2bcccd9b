/** Simulates every so many-th seed in a thread of its own, until its time is over. */
import { parentPort, workerData } from "node:worker_threads"
import { simulate } from "../../src/testing/simulation/Simulation.ts"

const { first, step, hosts, endMillis } = workerData as {
  readonly first: number
  readonly step: number
  readonly hosts: number
  readonly endMillis: number
}

for (let seed = first; Date.now() < endMillis; seed += step) {
  const simulated = simulate({ seed, hosts })
  parentPort?.postMessage(simulated.broken === undefined ? { ...simulated, events: [] } : simulated)
  if (simulated.broken !== undefined) break
}

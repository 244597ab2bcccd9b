/** The data this thread was started with. Imported by nothing that runs in the plugin's own thread. */
import { workerData } from "node:worker_threads"
import { countersPerRoute, type ThreadData } from "./Messages.ts"

const data = workerData as ThreadData

export const { port, wake, epoll, settings } = data
export const kind = new Uint8Array(data.kinds)
export const generation = new Uint16Array(data.generations)
export const turn = new Int32Array(data.turn)

const counters = new Float64Array(data.counters)

/** `counter` is one of `counterOf`. Nobody else writes to these, and a reader may see a moment ago. */
export const count = (route: number, counter: number, amount: number): void => {
  const index = route * countersPerRoute + counter
  counters[index] = (counters[index] ?? 0) + amount
}

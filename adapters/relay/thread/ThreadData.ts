/** The data this thread was started with. Imported by nothing that runs in the plugin's own thread. */
import { workerData } from "node:worker_threads"
import { countersPerRoute, type Report, type ThreadData } from "../ThreadMessages.ts"

const data = workerData as ThreadData

export const { port, wake, epoll, settings } = data
export const kind = new Uint8Array(data.kinds)
export const generation = new Uint16Array(data.generations)
export const turn = new Int32Array(data.turn)
/** A descriptor for each local port of a socket to a backend, of whatever thread; see `Loops`. */
export const ownPorts = new Int32Array(data.ownPorts)
export const budget = new Int32Array(data.budget)

const counters = new Float64Array(data.counters)

/** `counter` is one of `counterOf`. Nobody else writes to these, and a reader may see a moment ago. */
export const count = (route: number, counter: number, amount: number): void => {
  const index = route * countersPerRoute + counter
  counters[index] = (counters[index] ?? 0) + amount
}

/** Sent together once a turn is over: the plugin's thread is woken for each message. */
let reports: Array<Report> = []
export const report = (message: Report): void => void reports.push(message)

export const sendReports = (): void => {
  if (reports.length === 0) return
  port.postMessage(reports)
  reports = []
}

/** The data this thread was started with. No module of the plugin's own thread imports this. */
import { workerData } from "node:worker_threads"
import { countersPerRoute, type Report, type ThreadData } from "../ThreadMessages.ts"

const data = workerData as ThreadData

export const { index, port, wake, epoll, settings } = data
export const kind = new Uint8Array(data.kinds)
export const generation = new Uint16Array(data.generations)
export const turn = new Int32Array(data.turn)
/** A descriptor for each local port of a socket to a backend, of every thread; see `Loops`. */
export const ownPorts = new Int32Array(data.ownPorts)
export const budget = new Int32Array(data.budget)

const counters = new Float64Array(data.counters)

/** `counter` is one of `counterOf`. No other thread writes these; a reader may see a slightly older value. */
export const count = (route: number, counter: number, amount: number): void => {
  const index = route * countersPerRoute + counter
  counters[index] = (counters[index] ?? 0) + amount
}

/** Reports are sent together at the end of a turn: the plugin's thread is woken for each message. */
let reports: Array<Report> = []
export const report = (message: Report): void => void reports.push(message)

export const sendReports = (): void => {
  if (reports.length === 0) return
  port.postMessage(reports)
  reports = []
}

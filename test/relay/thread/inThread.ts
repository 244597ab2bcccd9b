/** Runs a function where the modules of a relay's thread work: they read the thread's data when they are loaded. */
import { once } from "node:events"
import { MessageChannel, Worker } from "node:worker_threads"
import { libc } from "../../../adapters/linux/Libc.ts"
import {
  budgetWords,
  countersPerRoute,
  maxDescriptors,
  maxRoutes,
  portCount,
  type Report,
  type Serving,
  type ThreadData,
  turnWords
} from "../../../adapters/relay/ThreadMessages.ts"

const modules = {
  Deadlines: "relay/thread/Deadlines.ts",
  Epoll: "relay/thread/Epoll.ts",
  Memory: "relay/thread/Memory.ts",
  RouteTable: "relay/thread/RouteTable.ts",
  Syscalls: "linux/Syscalls.ts",
  ThreadData: "relay/thread/ThreadData.ts"
}

interface Tools {
  readonly Deadlines: typeof import("../../../adapters/relay/thread/Deadlines.ts")
  readonly Epoll: typeof import("../../../adapters/relay/thread/Epoll.ts")
  readonly Memory: typeof import("../../../adapters/relay/thread/Memory.ts")
  readonly RouteTable: typeof import("../../../adapters/relay/thread/RouteTable.ts")
  readonly Syscalls: typeof import("../../../adapters/linux/Syscalls.ts")
  readonly ThreadData: typeof import("../../../adapters/relay/thread/ThreadData.ts")
  /** A route of TCP on `0.0.0.0`, whose backend is 10.0.0.2. */
  readonly serving: (id: number, more?: Partial<Serving>) => Serving
}

const serving: Tools["serving"] = (id, more = {}) => ({
  id,
  fd: 50,
  protocol: "tcp",
  family: 4,
  wildcard: true,
  local: undefined,
  backend: Uint8Array.of(2, 0, 0, 80, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0),
  allow: undefined,
  proxyProtocol: undefined,
  udpIdleMillis: 90_000,
  share: undefined,
  isRedirected: false,
  isIdle: false,
  waitMillis: 0,
  limits: undefined,
  ...more
})

const urls = Object.entries(modules).map(([name, path]) => [
  name,
  new URL(`../../../adapters/${path}`, import.meta.url).href
])
const program = (body: (tools: Tools) => unknown) => `
  import { workerData } from "node:worker_threads"
  const tools = { serving: ${serving} }
  for (const [name, url] of workerData.modules) tools[name] = await import(url)
  const outcome = await (${body})(tools)
  tools.ThreadData.sendReports()
  workerData.outcome.postMessage(outcome)`

/** `body` sees nothing but its parameter. Returns what it returns, and what it reported. */
export const inThread = async <A>(
  body: (tools: Tools) => A | Promise<A>
): Promise<{ readonly outcome: A; readonly reports: ReadonlyArray<Report> }> => {
  const [wake, epoll] = [libc().eventfd(0, 0), libc().epollCreate(0)]
  const reports = new MessageChannel()
  const result = new MessageChannel()
  const data: ThreadData = {
    index: 0,
    loadedBy: import.meta.url,
    port: reports.port2,
    wake,
    epoll,
    generations: new SharedArrayBuffer(maxDescriptors * 2),
    turn: new SharedArrayBuffer(turnWords * 4),
    kinds: new SharedArrayBuffer(maxDescriptors),
    counters: new SharedArrayBuffer(maxRoutes * countersPerRoute * 8),
    ownPorts: new SharedArrayBuffer(portCount * 2 * 4),
    budget: new SharedArrayBuffer(budgetWords * 4),
    settings: { answerMillis: 1000, connectMillis: 1000, maxFlows: 8 }
  }
  const worker = new Worker(program(body), {
    eval: true,
    execArgv: ["--input-type=module"],
    workerData: { ...data, outcome: result.port2, modules: urls },
    transferList: [reports.port2, result.port2]
  })
  const seen: Array<Report> = []
  reports.port1.on("message", (some: ReadonlyArray<Report>) => void seen.push(...some))
  try {
    const [outcome] = await Promise.race([
      once(result.port1, "message"),
      once(worker, "error").then(([error]) => Promise.reject(error))
    ])
    return { outcome, reports: seen }
  } finally {
    await worker.terminate()
    for (const { port1 } of [reports, result]) port1.close()
    for (const fd of [wake, epoll]) libc().close(fd)
  }
}

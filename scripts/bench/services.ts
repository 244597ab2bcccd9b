/**
 * Services: several backends behind one port. New connections per second through 1,000 services of 10 backends beside
 * one plain port, and through one service beside HAProxy and nginx with the same 10 backends; the memory of a
 * backend; and the time from the Engine's event that a backend ended, or started, to the kernel's change. Needs root,
 * nftables, conntrack, iproute2 and gcc; the events dockerd, busybox and iptables; HAProxy and nginx where they are
 * there.
 */
import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { wireEntry } from "../../test/support/requests.ts"
import {
  backendPort,
  firstPort,
  type Measured,
  measureHosts,
  type Place,
  paired,
  type Subject
} from "./hosts.ts"
import { type Plugin, startPlugin } from "./plugin.ts"
import { mapped } from "./redirect.ts"
import { noNginx, Processes, processorTime, proportionalMemory, startNginx, within } from "./relaySubjects.ts"
import { measureEvents } from "./serviceEvents.ts"
import { median, row } from "./stats.ts"

const rounds = Number(process.env["ROUNDS"] ?? 21)
const backends = 10
const manyServices = 1000

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench services needs root, nftables and iproute2")
  const memory: Array<Memory> = []
  const proxies = [haproxy, nginx].filter(({ name, lacks }) => {
    const why = lacks()
    if (why !== undefined) console.log(`${name} is not measured: ${why}`)
    return why === undefined
  })
  const subjects = [
    { ...mapped(1), name: "one plain port" },
    services(manyServices, memory),
    services(1, []),
    ...proxies
  ]
  printConnections(subjects, await measureHosts(subjects, { rounds, backends }))
  for (const { process, kernel } of memory) {
    const each = (kilobytes: number) => (kilobytes / (manyServices * backends)).toFixed(1)
    console.log(`\n${row(["memory of a backend, KB", "process", "kernel"])}`)
    console.log(row([`  of ${(manyServices * backends).toLocaleString("en")}`, each(process), each(kernel)]))
  }
  await measureEvents()
}

/** The growth by all services, in kilobytes. */
interface Memory {
  readonly process: number
  readonly kernel: number
}

/** Each service has the same backends: addresses of one host. */
const services = (count: number, memory: Array<Memory>): Subject => ({
  name: count === 1 ? "one service" : `${count.toLocaleString("en")} services`,
  ports: count,
  prepare: async ({ namespace, octet }) => {
    const plugin = await startPlugin(namespace)
    const ports = Array.from({ length: count }, (_, index) => firstPort + index)
    // What only the first calls allocate is not a backend's.
    await map(plugin, [firstPort + count], octet)
    const before = memoryOf(plugin)
    for (let at = 0; at < count; at += portsAtOnce)
      await map(plugin, ports.slice(at, at + portsAtOnce), octet)
    await sleep(2000)
    const after = memoryOf(plugin)
    memory.push({ process: after.process - before.process, kernel: after.kernel - before.kernel })
    return plugin
  }
})

const portsAtOnce = 250

const map = async (plugin: Plugin, ports: ReadonlyArray<number>, octet: number) => {
  for (const address of addressesAt(octet))
    await plugin.call("MapGroups", {
      Groups: ports.map((port) => ({
        Reqs: [wireEntry(`tcp 0.0.0.0:${port} ${address}:${backendPort}`)],
        Labels: { "portmapper.share": "all" }
      }))
    })
}

const addressesAt = (octet: number) =>
  Array.from({ length: backends }, (_, index) => `172.31.${octet}.${2 + index}`)

const memoryOf = (plugin: Plugin): Memory => ({
  process: proportionalMemory([plugin]),
  kernel: kernelObjects()
})

/** The kernel's small objects that it charges to processes, as elements of sets are, in kilobytes; see slabinfo(5). */
const kernelObjects = (): number => {
  const lines = readFileSync("/proc/slabinfo", "latin1").matchAll(/^kmalloc-cg-\S+\s+(\d+)\s+\d+\s+(\d+)/gm)
  return [...lines].reduce((sum, [, objects, bytes]) => sum + (Number(objects) * Number(bytes)) / 1024, 0)
}

interface Proxy extends Subject {
  /** Why it can't be measured. */
  readonly lacks: () => string | undefined
}

const proxy = (
  name: string,
  lacks: Proxy["lacks"],
  start: (processes: Processes, place: Place) => ReturnType<Processes["start"]>
): Proxy => ({
  name,
  ports: 1,
  lacks,
  prepare: async (place) => {
    const processes = new Processes()
    const child = start(processes, place)
    await sleep(1000)
    const why = processes.whyEnded([child])
    if (why !== undefined) throw new Error(`${name}: ${why}`)
    return { stop: () => processes.end(), micros: () => processorTime([child]) * 1e6 }
  }
})

const haproxy = proxy(
  "HAProxy",
  () => (spawnSync("haproxy", ["-v"]).status === 0 ? undefined : "haproxy is not installed"),
  (processes, { namespace, octet, folder }) => {
    const file = join(folder, "haproxy.cfg")
    writeFileSync(
      file,
      `global
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen web
  bind 10.9.${octet}.1:${firstPort}
${addressesAt(octet)
  .map((address, index) => `  server s${index} ${address}:${backendPort}\n`)
  .join("")}`
    )
    return processes.start(...within(namespace, "haproxy", ["-db", "-f", file]))
  }
)

const nginx = proxy("nginx stream", noNginx, (processes, { namespace, octet, folder }) => {
  const servers = addressesAt(octet).map((address) => `server ${address}:${backendPort};`)
  return startNginx(
    processes,
    folder,
    "web",
    [
      `upstream web { ${servers.join(" ")} }`,
      `server { listen 10.9.${octet}.1:${firstPort}; proxy_pass web; }`
    ],
    namespace
  )
})

const printConnections = (subjects: ReadonlyArray<Subject>, measured: ReadonlyArray<Measured>) => {
  console.log(row([`new connections, ${rounds} rounds, median`, "/s", "µs cpu each"]))
  for (const [index, { name }] of subjects.entries()) {
    const { rates, micros } = measured[index] ?? { rates: [], micros: [] }
    console.log(row([`  ${name}`, median(rates).toFixed(0), median(micros).toFixed(1)]))
  }
  const pair = (one: number, other: number) => {
    const [mine, theirs] = [measured[one], measured[other]]
    if (mine === undefined || theirs === undefined) return
    const title = `  ${subjects[one]?.name} over ${subjects[other]?.name}`
    console.log(row([title, paired(mine.rates, theirs.rates), paired(theirs.micros, mine.micros)]))
  }
  console.log(row(["paired, by rate and by processor time", "rate", "cpu"]))
  pair(1, 0)
  for (let other = 3; other < subjects.length; other++) pair(2, other)
}

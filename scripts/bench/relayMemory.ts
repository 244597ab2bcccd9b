/** The memory of an idle port: that of the processes and of the kernel, before and after opening many. */
import type { ChildProcess } from "node:child_process"
import { setTimeout as sleep } from "node:timers/promises"
import type { Routes } from "./relayProcess.ts"
import {
  answer,
  kernelMemory,
  noNginx,
  type Processes,
  proportionalMemory,
  startDockerProxy,
  startNginx
} from "./relaySubjects.ts"
import { median, row } from "./stats.ts"

export const memoryTitle = "memory of an idle port"

const portCount = 10_000
/** Runs in fresh processes, each measured once: the rest of the machine uses memory too. */
const rounds = 3
/** Fewer ports, since each is a process. */
const proxyCount = 100
const portsPerAddress = 4000

export const measureMemory = async (processes: Processes, folder: string): Promise<void> => {
  console.log(`\n${row([memoryTitle, "ports", "KB", "of it kernel", "us to open"])}`)
  for (const protocol of ["tcp", "udp"] as const) await ours(processes, protocol)
  await others(processes, "docker-proxy", proxyCount, () =>
    Array.from({ length: proxyCount }, (_, index) =>
      startDockerProxy(processes, "127.0.60.1", 10_000 + index, "echo")
    )
  )
  const gone = noNginx()
  if (gone !== undefined) console.log(`${row(["  nginx"])}  not measured: ${gone}`)
  else
    await others(processes, "nginx", portCount, () => {
      const listens = Array.from(
        { length: portCount },
        (_, index) =>
          `server { listen 127.0.${70 + Math.floor(index / portsPerAddress)}.1:${10_000 + (index % portsPerAddress)}; proxy_pass 127.0.0.1:21001; }`
      )
      return [startNginx(processes, folder, "idle", listens)]
    })
}

/** The median of fresh processes. */
const ours = async (processes: Processes, protocol: "tcp" | "udp") => {
  const seen: Array<Used> = []
  for (let round = 0; round < rounds; round++) seen.push(await oursOnce(processes, protocol))
  const of = (value: (used: Used) => number) => median(seen.map(value))
  print(
    `  portmapper, ${protocol}`,
    portCount,
    of(({ process }) => process),
    of(({ kernel }) => kernel),
    (of(({ took }) => took) / portCount) * 1000
  )
}

/** Kilobytes, and milliseconds. */
interface Used {
  readonly process: number
  readonly kernel: number
  readonly took: number
}

/** The memory that 10,000 routes add to a relay that already has 101. */
const oursOnce = async (processes: Processes, protocol: "tcp" | "udp"): Promise<Used> => {
  const routes = (count: number, host: string): ReadonlyArray<Routes> => [
    { protocol, host, port: 10_000, count, backendPort: 21_001 }
  ]
  const relay = await processes.relay(routes(1, "127.0.40.1"), ["--expose-gc"])
  const ask = async (more: ReadonlyArray<Routes>) => {
    relay.stdin?.write(`${JSON.stringify(more)}\n`)
    return JSON.parse(await answer(relay)) as { readonly took: number; readonly rss: number }
  }
  const before = await ask(routes(100, "127.0.41.1"))
  const kernelBefore = kernelMemory()
  const after = await ask(routes(portCount, "127.0.50.1"))
  const kernel = kernelMemory() - kernelBefore
  relay.kill()
  await sleep(500)
  return { process: after.rss - before.rss, kernel, took: after.took }
}

const others = async (
  processes: Processes,
  name: string,
  ports: number,
  start: () => ReadonlyArray<ChildProcess>
) => {
  const kernelBefore = kernelMemory()
  const started = start()
  await sleep(3000)
  const gone = processes.whyEnded(started)
  if (gone !== undefined) console.log(`${row([`  ${name}`])}  not measured: ${gone}`)
  else print(`  ${name}`, ports, proportionalMemory(started), kernelMemory() - kernelBefore, Number.NaN)
  for (const child of started) child.kill()
  await sleep(500)
}

const print = (
  title: string,
  ports: number,
  processKilobytes: number,
  kernelKilobytes: number,
  micros: number
) =>
  console.log(
    row([
      title,
      ports,
      ((processKilobytes + kernelKilobytes) / ports).toFixed(2),
      (kernelKilobytes / ports).toFixed(2),
      Number.isNaN(micros) ? "" : micros.toFixed(0)
    ])
  )

/**
 * The subjects that the relay is compared with, each started with the same three routes: two of TCP and one of UDP.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { processorMicros } from "./processorTime.ts"
import type { Routes } from "./relayProcess.ts"

export const host = "127.0.0.1"
/** The backends' ports; a subject's ports are as far above `base` as these are above 21000. */
export const ports = { echo: 21_001, sink: 21_002, packets: 21_004 } as const
export type Service = keyof typeof ports

export interface Subject {
  readonly name: string
  readonly port: (service: Service) => number
  readonly processes: ReadonlyArray<ChildProcess>
  /** Why it is not measured, or no longer. */
  gone: string | undefined
}

const services = Object.keys(ports) as ReadonlyArray<Service>

/** Kills every process it started when it ends. */
export class Processes {
  /** The last line of each on stderr. */
  private readonly children = new Map<ChildProcess, string>()

  start(command: string, words: ReadonlyArray<string>): ChildProcess {
    // docker-proxy reports on descriptor 3.
    const child = spawn(command, words, { stdio: ["pipe", "pipe", "pipe", "pipe"] })
    this.children.set(child, "")
    child.stderr?.on("data", (text: Buffer) => {
      this.children.set(child, text.toString().trim().split("\n").at(-1) ?? "")
    })
    child.on("error", ({ message }) => this.children.set(child, message))
    return child
  }

  /** Why one of these is not running, or `undefined`. */
  whyEnded(children: ReadonlyArray<ChildProcess>): string | undefined {
    const ended = children.find(
      ({ pid, exitCode, signalCode }) => pid === undefined || exitCode !== null || signalCode !== null
    )
    if (ended === undefined) return undefined
    const how = ended.pid === undefined ? "did not start" : `ended with ${ended.signalCode ?? ended.exitCode}`
    return `it ${how}: ${this.children.get(ended)}`
  }

  /** Waits until a process listens on this TCP port, or one of these has ended; returns the reason on failure. */
  async listens(children: ReadonlyArray<ChildProcess>, port: number): Promise<string | undefined> {
    for (let tries = 0; tries < 500; tries++) {
      const why = this.whyEnded(children)
      if (why !== undefined || (await accepts(port))) return why
      await sleep(20)
    }
    return `nothing listens at its port ${port}`
  }

  async relay(routes: ReadonlyArray<Routes>, nodeOptions: ReadonlyArray<string> = []): Promise<ChildProcess> {
    const script = join(import.meta.dirname, "relayProcess.ts")
    const child = this.start(process.execPath, [...nodeOptions, script, JSON.stringify(routes)])
    await answer(child)
    return child
  }

  end(): void {
    for (const child of this.children.keys()) child.kill()
  }
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, host)
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false))
    socket.on("connect", () => socket.destroy())
  })

/** The next line that a process prints. */
export const answer = (child: ChildProcess): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = ""
    const onData = (bytes: Buffer) => {
      text += bytes.toString()
      if (!text.includes("\n")) return
      child.off("exit", onExit).stdout?.off("data", onData)
      resolve(text.trim())
    }
    const onExit = () => reject(new Error("a measured process ended"))
    child.stdout?.on("data", onData)
    child.on("exit", onExit)
  })

export const compileLoad = (folder: string): string => {
  const load = join(folder, "load")
  execFileSync("gcc", ["-O2", "-o", load, join(import.meta.dirname, "load.c"), "-lpthread"])
  return load
}

const protocolOf = (service: Service) => (service === "packets" ? "udp" : "tcp")

const at = (base: number) => (service: Service) => base + ports[service] - 21_000

export const startSubjects = async (
  processes: Processes,
  load: string,
  folder: string
): Promise<ReadonlyArray<Subject>> => {
  const backends = services.map((service) => processes.start(load, [service, host, `${ports[service]}`]))
  const why = await processes.listens(backends, ports.echo)
  if (why !== undefined) throw new Error(`the backends of the benchmark can't be had: ${why}`)
  const ours = at(21_100)
  const routes = services.map((service): Routes => {
    const protocol = protocolOf(service)
    return { protocol, host, port: ours(service), count: 1, backendPort: ports[service] }
  })
  const subjects = [
    subject("direct", at(21_000), []),
    subject("portmapper", ours, [await processes.relay(routes)]),
    dockerProxy(processes),
    nginx(processes, folder)
  ]
  for (const one of subjects)
    for (const service of ["echo", "sink"] as const)
      one.gone ??= await processes.listens(one.processes, one.port(service))
  return subjects
}

const subject = (
  name: string,
  port: Subject["port"],
  processes: ReadonlyArray<ChildProcess>,
  gone?: string
): Subject => ({ name, port, processes, gone })

const dockerProxy = (processes: Processes): Subject => {
  const port = at(21_400)
  const children = services.map((service) => startDockerProxy(processes, host, port(service), service))
  return subject("docker-proxy", port, children)
}

export const startDockerProxy = (
  processes: Processes,
  address: string,
  port: number,
  service: Service
): ChildProcess =>
  processes.start("docker-proxy", [
    ...["-proto", protocolOf(service), "-host-ip", address, "-host-port", `${port}`],
    ...["-container-ip", host, "-container-port", `${ports[service]}`]
  ])

const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

/** Why nginx can't be measured. */
export const noNginx = (): string | undefined =>
  existsSync(streamModule) ? undefined : `nginx has no stream module (${streamModule})`

const nginx = (processes: Processes, folder: string): Subject => {
  const port = at(21_500)
  const gone = noNginx()
  if (gone !== undefined) return subject("nginx", port, [], gone)
  const servers = services.map((service) =>
    service === "packets"
      ? `server { listen ${host}:${port(service)} udp reuseport; proxy_pass ${host}:${ports[service]}; }`
      : `server { listen ${host}:${port(service)}; proxy_half_close on; proxy_pass ${host}:${ports[service]}; }`
  )
  return subject("nginx", port, [startNginx(processes, folder, "measured", servers)])
}

export const startNginx = (
  processes: Processes,
  folder: string,
  name: string,
  servers: ReadonlyArray<string>,
  namespace?: string
): ChildProcess => {
  const file = join(folder, `${name}.conf`)
  writeFileSync(
    file,
    `load_module ${streamModule}; user root; worker_processes auto; daemon off;
pid ${folder}/${name}.pid; error_log stderr;
events { worker_connections 32768; }
stream { ${servers.join("\n")} }\n`
  )
  return processes.start(...within(namespace, "nginx", ["-c", file]))
}

/** A command and its words, in a network namespace or in this one. */
export const within = (
  namespace: string | undefined,
  command: string,
  words: ReadonlyArray<string>
): [string, ReadonlyArray<string>] =>
  namespace === undefined ? [command, words] : ["ip", ["netns", "exec", namespace, command, ...words]]

type Pid = Pick<ChildProcess, "pid">

/** A process and its children. */
const family = ({ pid }: Pid): ReadonlyArray<number> => {
  if (pid === undefined) return []
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim()
  return [pid, ...children.split(" ").filter(Boolean).map(Number)]
}

/** Seconds of processor time that a subject has used. */
export const processorTime = (processes: ReadonlyArray<Pid>): number =>
  processes.flatMap(family).reduce((seconds, pid) => seconds + processorMicros(pid) / 1e6, 0)

/** The memory of these processes: their private part and their share of the common part, in kilobytes. */
export const proportionalMemory = (processes: ReadonlyArray<Pid>): number => {
  let kilobytes = 0
  for (const pid of processes.flatMap(family))
    kilobytes += Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1])
  return kilobytes
}

/**
 * The kernel's own memory: slab and vmalloc, in kilobytes; without the stacks of threads, and without cached data
 * of unused files if this process may drop it.
 */
export const kernelMemory = (): number => {
  try {
    writeFileSync("/proc/sys/vm/drop_caches", "2")
  } catch {}
  const text = readFileSync("/proc/meminfo", "utf8")
  const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1])
  return of("Slab") + of("VmallocUsed") - of("KernelStack")
}

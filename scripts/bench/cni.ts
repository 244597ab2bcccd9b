/**
 * How long a container with one published port waits at its start (ADD) and its end (DEL), process start included,
 * with 0, 100 and 1,000 ports of others live: our plugin, as installed and by Node where curl is missing, beside
 * the reference `portmap` on iptables and on nftables, each in a network namespace of its own, called in turn. The
 * start of an empty Node program is measured beside them.
 *
 * Needs root, Go with its module proxy (or cache), nftables, iptables, curl, and `npm run build`.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import type { Run, Took } from "./cniRunner.ts"
import { printed } from "./plugin.ts"
import { answer } from "./relaySubjects.ts"
import { millis, row, summarize } from "./stats.ts"

const reference = "github.com/containernetworking/plugins/plugins/meta/portmap@v1.9.0"
const bin = Path.resolve(import.meta.dirname, "../../dist/bin")
const levels = [0, 100, 1_000]
const rounds = 15
/** Ports of each of the other containers. */
const portsEach = 10

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench cni needs root, nftables, iptables, curl and Go")
  if (!Fs.existsSync(Path.join(bin, "portmapper-cni"))) throw new Error("bench cni needs npm run build")
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-bench-"))
  const subjects: Array<Subject> = []
  try {
    execFileSync("go", ["install", reference], { env: { ...process.env, GOBIN: folder }, stdio: "ignore" })
    const portmap = [Path.join(folder, "portmap")]
    const ours = [Path.join(bin, "portmapper-cni")]
    const byNode = [process.execPath, Path.join(bin, "portmapper-cni.js")]
    subjects.push(
      await start("portmapper-cni", folder, ours),
      await start("portmapper-cni, no curl", folder, byNode),
      await start("portmap, nftables", folder, portmap, "nftables"),
      await start("portmap, iptables", folder, portmap, "iptables")
    )
    console.log(row(["one port, p50 (fastest)", ...levels.map((level) => `${level} live`)]))
    const cells = new Map<string, Array<string>>()
    for (const level of levels) {
      for (const subject of subjects) await subject.fill(level)
      const samples = new Map<string, Array<number>>()
      const sample = (name: string, micros: number) =>
        samples.set(name, [...(samples.get(name) ?? []), micros])
      for (let round = 0; round < rounds; round++)
        for (const [index, subject] of subjects.entries()) {
          if (index === 0) sample("node -e 0", await subject.bare())
          sample(`${subject.name}: ADD`, await subject.call("ADD", "bench", [60_000]))
          sample(`${subject.name}: DEL`, await subject.call("DEL", "bench", [60_000]))
        }
      for (const [name, micros] of samples)
        cells.set(name, [...(cells.get(name) ?? []), textWithFastest(micros)])
    }
    for (const [name, texts] of cells) console.log(row([name, ...texts.map((cell) => cell.padStart(24))]))

    console.log(row(["100 ports of one container, 1,000 live", "ADD", "DEL"]))
    const many = Array.from({ length: 100 }, (_, index) => 61_000 + index)
    const took = subjects.map(() => ({ added: [] as Array<number>, deleted: [] as Array<number> }))
    for (let round = 0; round < 5; round++)
      for (const [index, subject] of subjects.entries()) {
        took[index]?.added.push(await subject.call("ADD", "bench", many))
        took[index]?.deleted.push(await subject.call("DEL", "bench", many))
      }
    for (const [index, { added, deleted }] of took.entries())
      console.log(row([subjects[index]?.name ?? "", ...[added, deleted].map(textWithFastest)]))
  } finally {
    for (const subject of subjects) subject.stop()
    Fs.rmSync(folder, { recursive: true, force: true })
  }
}

const textWithFastest = (micros: ReadonlyArray<number>): string =>
  `${millis(summarize(micros).p50)} (${millis(Math.min(...micros))})`

interface Subject {
  readonly name: string
  /** Returns how long the call took, in microseconds. */
  readonly call: (command: string, id: string, ports: ReadonlyArray<number>) => Promise<number>
  readonly bare: () => Promise<number>
  /** Publishes ports of other containers until this many are live. */
  readonly fill: (level: number) => Promise<void>
  readonly stop: () => void
}

/** The reference plugin has a backend; ours has a running plugin. */
const start = async (
  name: string,
  parent: string,
  command: ReadonlyArray<string>,
  backend?: string
): Promise<Subject> => {
  const folder = Fs.mkdtempSync(Path.join(parent, "subject-"))
  const namespace = `pmbench-${process.pid}-${Path.basename(folder)}`
  const socket = Path.join(folder, "p.sock")
  const state = Path.join(folder, "state")
  const processes: Array<ChildProcess> = []
  execFileSync("ip", ["netns", "add", namespace])
  const stop = () => {
    for (const child of processes) child.kill("SIGKILL")
    execFileSync("ip", ["netns", "delete", namespace])
  }
  const inside = (args: ReadonlyArray<string>, errors: "pipe" | "inherit") => {
    const child = spawn("ip", ["netns", "exec", namespace, ...args], { stdio: ["pipe", "pipe", errors] })
    processes.push(child)
    return child
  }
  try {
    // A bridge with the containers' network, on which the reference plugin looks for its route.
    const setUp = `ip link set lo up; ip link add cni0 type bridge; ip address add 10.88.0.1/16 dev cni0; ip link set cni0 up`
    execFileSync("ip", ["netns", "exec", namespace, "sh", "-ec", setUp])
    if (backend === undefined)
      await printed(
        inside(
          [process.execPath, Path.join(bin, "portmapper.js"), "serve", "--socket", socket, "--state", state],
          "pipe"
        ),
        "listening on "
      )
    const runner = inside(
      [process.execPath, "--import", "tsx", Path.join(import.meta.dirname, "cniRunner.ts")],
      "inherit"
    )
    const once = async (asked: Run): Promise<number> => {
      runner.stdin?.write(`${JSON.stringify(asked)}\n`)
      const took = JSON.parse(await answer(runner)) as Took
      if (took.status !== 0)
        throw new Error(`${name}: ${asked.env["CNI_COMMAND"]} failed: ${took.stdout}${took.stderr}`)
      return took.micros
    }
    const PATH = `${Path.dirname(process.execPath)}:${process.env["PATH"]}`
    const env = { PATH, CNI_PATH: folder, CNI_IFNAME: "eth0" }
    const call: Subject["call"] = (CNI_COMMAND, id, ports) =>
      once({
        command,
        env: { ...env, CNI_COMMAND, CNI_CONTAINERID: id, CNI_NETNS: "/proc/1/ns/net" },
        // Writes the keys in the order of the runtimes' library.
        input: JSON.stringify({
          ...(backend === undefined ? {} : { backend }),
          cniVersion: "1.0.0",
          name: "bench",
          prevResult: {
            cniVersion: "1.0.0",
            interfaces: [{ name: "eth0", sandbox: "/proc/1/ns/net" }],
            ips: [{ address: "10.88.0.2/16", interface: 0 }]
          },
          runtimeConfig: {
            portMappings: ports.map((port) => ({ hostPort: port, containerPort: 80, protocol: "tcp" }))
          },
          ...(backend === undefined ? { socket } : {}),
          type: "portmap"
        })
      })
    let live = 0
    return {
      name,
      call,
      bare: () => once({ command: [process.execPath, "-e", "0"], env, input: "" }),
      fill: async (level) => {
        for (; live < level; live += portsEach)
          await call(
            "ADD",
            `other${live}`,
            Array.from({ length: portsEach }, (_, index) => 10_000 + live + index)
          )
      },
      stop
    }
  } catch (error) {
    stop()
    throw error
  }
}

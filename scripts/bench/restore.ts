/**
 * How soon a killed plugin serves again: the time from its start to the first answered `Plugin.Activate` with
 * nothing to restore, and with 10,000 mappings in nat mode; the difference is the cost of the restore. Measures the
 * built package (`npm run build`), each start in the same network namespace.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { labRequest } from "../../test/support/requests.ts"
import { connect } from "./keepAliveClient.ts"
import { callOver } from "./plugin.ts"
import { row, summarize } from "./stats.ts"

const executable = "dist/bin/portmapper.js"
const live = 10_000
const starts = 7

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench restore needs root, nftables and iproute2")
  if (!Fs.existsSync(executable)) throw new Error(`${executable} is missing: npm run build makes it`)
  const namespace = `pmbench-${process.pid}-restore`
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-bench-"))
  execFileSync("ip", ["netns", "add", namespace])
  const running = new Set<ChildProcess>()
  try {
    execFileSync("ip", ["-n", namespace, "link", "set", "lo", "up"])
    const measure = async (count: number) => {
      const millis: Array<number> = []
      for (let index = 0; index < count; index++) {
        const plugin = await start(namespace, folder, running)
        millis.push(plugin.millis)
        await plugin.kill()
      }
      return summarize(millis)
    }
    await measure(1)
    const empty = await measure(starts)
    await fill(namespace, folder, running)
    const full = await measure(starts)
    const text = (value: number) => `${value.toFixed(0)} ms`
    const spread = ({ p50, p99 }: typeof empty) => [text(p50), text(p99)]
    console.log(row(["from start to the first answered Plugin.Activate", "p50", "worst"]))
    console.log(row(["nothing to restore (aim: 250 ms)", ...spread(empty)]))
    console.log(row([`${live.toLocaleString("en")} mappings to restore`, ...spread(full)]))
    console.log(row(["the restore itself (aim: 1,000 ms)", text(full.p50 - empty.p50)]))
    console.log(row(["node -e 0, for comparison", text(bareNode())]))
  } finally {
    for (const child of running) child.kill("SIGKILL")
    execFileSync("ip", ["netns", "delete", namespace])
    Fs.rmSync(folder, { recursive: true, force: true })
  }
}

const start = async (namespace: string, folder: string, running: Set<ChildProcess>) => {
  const socketPath = Path.join(folder, "p.sock")
  Fs.rmSync(socketPath, { force: true })
  const begun = performance.now()
  const command = [executable, "serve", "--socket", socketPath, "--state", Path.join(folder, "state")]
  const child = spawn("ip", ["netns", "exec", namespace, process.execPath, ...command], {
    stdio: ["ignore", "ignore", "pipe"]
  })
  running.add(child)
  let output = ""
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    output += text
  })
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()))
  while (!(await activates(socketPath))) {
    if (child.exitCode !== null) throw new Error(`the plugin ended:\n${output}`)
    await sleep(1)
  }
  const millis = performance.now() - begun
  return {
    millis,
    socketPath,
    kill: async () => {
      child.kill("SIGKILL")
      await ended
      running.delete(child)
    }
  }
}

/** False until the plugin listens and answers. */
const activates = (socketPath: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = Net.connect(socketPath)
    socket.once("error", () => resolve(false))
    socket.once("data", (chunk) => {
      socket.destroy()
      resolve(chunk.toString("latin1").startsWith("HTTP/1.1 200 "))
    })
    socket.once("connect", () =>
      socket.write(
        "POST /Plugin.Activate HTTP/1.1\r\nHost: plugin.moby.localhost\r\nContent-Length: 0\r\n\r\n"
      )
    )
  })

const fill = async (namespace: string, folder: string, running: Set<ChildProcess>) => {
  const plugin = await start(namespace, folder, running)
  const client = await connect(plugin.socketPath)
  const call = callOver(client)
  for (let port = 10_000; port < 10_000 + live; port++) await call("MapPorts", labRequest(port))
  client.close()
  await plugin.kill()
}

const bareNode = (): number =>
  summarize(
    Array.from({ length: starts }, () => {
      const begun = performance.now()
      execFileSync(process.execPath, ["-e", "0"])
      return performance.now() - begun
    })
  ).p50

/** The plugin as `npm start` runs it, inside a network namespace, for benchmarks over its Unix socket. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { labRequest } from "../../test/support/requests.ts"
import { connect, type KeepAliveClient } from "./keepAliveClient.ts"

export interface Plugin {
  readonly call: (method: string, body: unknown) => Promise<{ readonly PortBindings: ReadonlyArray<unknown> }>
  readonly client: KeepAliveClient
  readonly pid: number
  /** Of its sockets. */
  readonly folder: string
  readonly stop: () => void
}

/** In a namespace of its own, with so many ports mapped from 10,001 on; `options` are further ones, by its folder. */
export const startLive = async (
  name: string,
  live: number,
  options?: (folder: string) => ReadonlyArray<string>
): Promise<Plugin> => {
  const namespace = `pmbench-${process.pid}-${name}`
  execFileSync("ip", ["netns", "add", namespace])
  const remove = () => void execFileSync("ip", ["netns", "delete", namespace])
  try {
    execFileSync("ip", ["-n", namespace, "link", "set", "lo", "up"])
    const plugin = await startPlugin(namespace, options)
    for (let port = 1; port <= live; port++) await plugin.call("MapPorts", labRequest(10_000 + port))
    return {
      ...plugin,
      stop: () => {
        plugin.stop()
        remove()
      }
    }
  } catch (error) {
    remove()
    throw error
  }
}

export const callOver =
  (client: KeepAliveClient): Plugin["call"] =>
  async (method, body) =>
    JSON.parse(await client.post(`/PortMapper.${method}`, `${JSON.stringify(body)}\n`))

export const startPlugin = async (
  namespace: string,
  options: (folder: string) => ReadonlyArray<string> = () => []
): Promise<Plugin> => {
  // In memory, like /run, where an installed plugin keeps its state.
  const folder = Fs.mkdtempSync(Path.join("/dev/shm", "portmapper-bench-"))
  const socketPath = Path.join(folder, "p.sock")
  const state = Path.join(folder, "state")
  const command = ["adapters/cli/main.ts", "serve", "--socket", socketPath, "--state", state]
  const child = spawn("ip", ["netns", "exec", namespace, process.execPath, ...command, ...options(folder)], {
    stdio: ["ignore", "ignore", "pipe"]
  })
  const stop = () => {
    child.kill("SIGKILL")
    Fs.rmSync(folder, { recursive: true, force: true })
  }
  try {
    await printed(child, "listening on ")
    const client = await connect(socketPath)
    return { call: callOver(client), client, pid: child.pid ?? 0, folder, stop }
  } catch (error) {
    stop()
    throw error
  }
}

/** Resolves once a process prints a line with this text on stderr. */
export const printed = async (child: ChildProcess, text: string): Promise<void> => {
  if (child.stderr === null) throw new Error("no stderr")
  const seen: Array<string> = []
  for await (const line of createInterface(child.stderr)) {
    if (line.includes(text)) {
      child.stderr.resume()
      return
    }
    seen.push(line)
  }
  throw new Error(`it ended before it printed "${text}":\n${seen.join("\n")}`)
}

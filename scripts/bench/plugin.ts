/** The plugin as `npm start` runs it, inside a network namespace, for benchmarks over its Unix socket. */
import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { connect, type KeepAliveClient } from "./keepAliveClient.ts"

export interface Plugin {
  readonly call: (method: string, body: unknown) => Promise<{ readonly PortBindings: ReadonlyArray<unknown> }>
  readonly client: KeepAliveClient
  readonly pid: number
  readonly stop: () => void
}

export const startPlugin = async (namespace: string): Promise<Plugin> => {
  // In memory, like /run, where an installed plugin keeps its state.
  const folder = Fs.mkdtempSync(Path.join("/dev/shm", "portmapper-bench-"))
  const socketPath = Path.join(folder, "p.sock")
  const command = [
    "adapters/cli/main.ts",
    "serve",
    "--socket",
    socketPath,
    "--state",
    Path.join(folder, "state")
  ]
  const child = spawn("ip", ["netns", "exec", namespace, process.execPath, ...command], {
    stdio: ["ignore", "ignore", "pipe"]
  })
  const stop = () => {
    child.kill("SIGKILL")
    Fs.rmSync(folder, { recursive: true, force: true })
  }
  try {
    await listening(child)
    const client = await connect(socketPath)
    return {
      call: async (method, body) =>
        JSON.parse(await client.post(`/PortMapper.${method}`, `${JSON.stringify(body)}\n`)),
      client,
      pid: child.pid ?? 0,
      stop
    }
  } catch (error) {
    stop()
    throw error
  }
}

const listening = async (child: ChildProcess): Promise<void> => {
  if (child.stderr === null) throw new Error("no stderr")
  const seen: Array<string> = []
  for await (const line of createInterface(child.stderr)) {
    if (line.startsWith("listening on ")) {
      child.stderr.resume()
      return
    }
    seen.push(line)
  }
  throw new Error(`the plugin did not start:\n${seen.join("\n")}`)
}

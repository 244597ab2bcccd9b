/** The plugin as a user runs it, inside a network namespace, for the benchmarks to ask over its Unix socket. */
import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { connect } from "./keepAliveClient.ts"

export interface Plugin {
  readonly call: (method: string, body: unknown) => Promise<{ readonly PortBindings: ReadonlyArray<unknown> }>
  readonly stop: () => void
}

export const startPlugin = async (namespace: string): Promise<Plugin> => {
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-bench-"))
  const socketPath = Path.join(folder, "p.sock")
  const command = [
    "--import",
    "tsx",
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

/** A process of a test: its output as lines of JSON, and its end. */
import { type ChildProcess, spawn } from "node:child_process"
import * as Readline from "node:readline"
import { Effect } from "effect"
import type { PluginOptions } from "./plugin.ts"

export interface TestProcess {
  readonly child: ChildProcess
  /** The next line of its output; fails with its stderr when there is none left. */
  readonly next: Effect.Effect<Record<string, unknown>, Error>
  /** Sends a signal and waits for the end; returns the exit status, or the signal that ended it. */
  readonly end: (signal: NodeJS.Signals) => Effect.Effect<number | string>
}

export const pluginScript = new URL("plugin.ts", import.meta.url).pathname

/** The command that starts a plugin with these options. */
export const pluginCommand = (options: PluginOptions): ReadonlyArray<string> => [
  process.execPath,
  pluginScript,
  JSON.stringify(options)
]

/** Starts a command, and kills it when the scope closes. */
export const start = ([command = "", ...args]: ReadonlyArray<string>, env: NodeJS.ProcessEnv = process.env) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] })),
      (child) => Effect.sync(() => void child.kill("SIGKILL"))
    ),
    (child): TestProcess => {
      let errors = ""
      child.stderr.on("data", (chunk) => {
        errors += chunk
      })
      const ended = new Promise<number | string>((resolve) =>
        child.once("close", (code, signal) => resolve(code ?? signal ?? ""))
      )
      const lines = Readline.createInterface(child.stdout)[Symbol.asyncIterator]()
      return {
        child,
        next: Effect.tryPromise({
          try: async () => {
            const line = await lines.next()
            if (line.done) throw new Error(`${command} ended: ${errors}`)
            return JSON.parse(line.value)
          },
          catch: (error) => error as Error
        }),
        end: (signal) =>
          Effect.promise(() => {
            child.kill(signal)
            return ended
          })
      }
    }
  )

const python = (script: string) => ["python3", new URL(script, import.meta.url).pathname]

/** Starts what prints the datagrams that come to a Unix socket, as systemd receives them. */
export const startReceiver = (address: string) => start([...python("receive.py"), address])

type Address = string | readonly [host: string, port: number]

/** Starts a plugin with these sockets as systemd passes them, and restarts it after each of its runs but the last. */
export const activated = (
  sockets: ReadonlyArray<Address>,
  options: PluginOptions["systemd"] = {},
  env: NodeJS.ProcessEnv = {},
  lives = 1
) =>
  start(
    [
      ...python("activate.py"),
      JSON.stringify(sockets),
      String(lives),
      ...pluginCommand({ systemd: options })
    ],
    { ...process.env, ...env }
  )

/** The command line as a user or a script runs it: its own process, and its whole output. */
import { spawn } from "node:child_process"
import * as Path from "node:path"
import { Effect } from "effect"

export interface Ran {
  readonly status: number | string
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string
  readonly env?: NodeJS.ProcessEnv
  /** When this completes, SIGINT is sent; then `afterwards` runs at once. */
  readonly signalled?: Effect.Effect<void>
  readonly afterwards?: Effect.Effect<void>
  /** Interrupts when this returns true for all of stdout so far: by SIGINT, on a terminal by its key. */
  readonly enough?: (stdout: string) => boolean
}

const main = Path.join(import.meta.dirname, "../../adapters/cli/main.ts")

/** `portmapper ARGS`. */
export const portmapper = (args: ReadonlyArray<string>, options: RunOptions = {}): Effect.Effect<Ran> =>
  run([process.execPath, main, ...args], options)

/** The same on a terminal with so many columns, where stdout and stderr are one stream. */
export const onTerminal = (
  args: ReadonlyArray<string>,
  columns: number,
  options: RunOptions = {}
): Effect.Effect<Ran> =>
  run(
    [
      "script",
      "-qec",
      `stty cols ${columns} rows 24 -onlcr; ${[process.execPath, main, ...args].map(quoted).join(" ")}`,
      "/dev/null"
    ],
    options
  )

/** The same as part of a shell's command line, where `portmapper` is a function. */
export const inShell = (script: string, options: RunOptions = {}): Effect.Effect<Ran> =>
  run(
    ["bash", "-c", `portmapper() { ${quoted(process.execPath)} ${quoted(main)} "$@"; }\n${script}`],
    options
  )

/** `portmapper ARGS` in its own network namespace, whose tables it may remove, between two shell commands. */
export const resetIn = (args: ReadonlyArray<string>, before = "true", after = "true"): Effect.Effect<Ran> =>
  run([
    "unshare",
    "--net",
    "sh",
    "-ec",
    `${before}; ${[process.execPath, main, ...args].map(quoted).join(" ")}; ${after}`
  ])

export const run = (
  [command = "", ...args]: ReadonlyArray<string>,
  options: RunOptions = {}
): Effect.Effect<Ran> =>
  Effect.callback((resume) => {
    const child = spawn(command, args, {
      env: { ...withoutSettings(process.env), ...options.env },
      stdio: "pipe"
    })
    let [stdout, stderr] = ["", ""]
    let isEnough = false
    if (options.signalled !== undefined)
      Effect.runFork(
        options.signalled.pipe(
          Effect.andThen(Effect.sync(() => child.kill("SIGINT"))),
          Effect.andThen(options.afterwards ?? Effect.void)
        )
      )
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      stdout += chunk
      // A terminal echoes the key, too.
      if (isEnough || options.enough?.(stdout) !== true) return
      isEnough = true
      if (command === "script") child.stdin.write("\u0003")
      else child.kill("SIGINT")
    })
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      stderr += chunk
    })
    child.stdin.on("error", () => undefined)
    // The end of input would end the terminal before its command.
    if (options.input !== undefined || command !== "script") child.stdin.end(options.input ?? "")
    child.once("error", (error) => resume(Effect.die(error)))
    child.once("close", (code, signal) =>
      resume(Effect.succeed({ status: code ?? signal ?? "", stdout, stderr }))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** A variable for the tests themselves, such as `PORTMAPPER_REQUIRE_LAB`, is no setting of the program. */
const withoutSettings = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("PORTMAPPER_")))

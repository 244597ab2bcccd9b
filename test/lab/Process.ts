/**
 * Runs child processes to their end, in bounded time. Knows nothing of namespaces; `Running.ts` has long-lived
 * processes.
 */
import { type ChildProcess, spawn as spawnChild } from "node:child_process"
import { Effect, Schema } from "effect"
import { patienceMillis } from "./patience.ts"

/** A failure of the lab itself, as opposed to one of the code under test. */
export class LabError extends Schema.TaggedError<LabError>()("LabError", {
  operation: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.operation}: ${this.detail}`
  }
}

export interface RunOptions {
  /** Written to standard input, which is then closed. Default: nothing. */
  readonly input?: string
  readonly cwd?: string
  /** Merged over the environment of the test; `undefined` removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** The name in errors. Default: the command line. */
  readonly label?: string
  /** Default `patienceMillis`. After it the process is killed, and the effect fails. */
  readonly timeoutMillis?: number
}

/** Exactly one of the two is not `null`. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Output extends Ended {
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command to its end. Any exit code is a success; failing to start, or to end in time, is a failure. */
export const run = (
  command: string,
  args: ReadonlyArray<string>,
  options: RunOptions = {}
): Effect.Effect<Output, LabError> => {
  const operation = options.label ?? [command, ...args].join(" ")
  const timeoutMillis = options.timeoutMillis ?? patienceMillis
  return Effect.callback<Output, LabError>((resume) => {
    const fail = (detail: string) => resume(Effect.fail(new LabError({ operation, detail })))
    const child = start(command, args, options)
    const timer = setTimeout(() => {
      child.kill("SIGKILL")
      fail(`did not end within ${timeoutMillis} ms: ${stdout}${stderr}`)
    }, timeoutMillis)
    let stdout = ""
    let stderr = ""
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
    })
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr += text
    })
    child.on("error", (error) => {
      clearTimeout(timer)
      fail(error.message)
    })
    onEnd(child, ({ code, signal }) => {
      clearTimeout(timer)
      child.stdout?.destroy()
      child.stderr?.destroy()
      resume(Effect.succeed({ code, signal, stdout, stderr }))
    })
    child.stdin?.on("error", () => {})
    child.stdin?.end(options.input ?? "")
    return Effect.sync(() => {
      clearTimeout(timer)
      child.kill("SIGKILL")
    })
  })
}

/** As `run`, but an exit code other than 0 is a failure that quotes standard error. Returns standard output. */
export const check = (
  command: string,
  args: ReadonlyArray<string>,
  options: RunOptions = {}
): Effect.Effect<string, LabError> =>
  Effect.flatMap(run(command, args, options), (output) =>
    output.code === 0
      ? Effect.succeed(output.stdout)
      : Effect.fail(
          new LabError({
            operation: options.label ?? [command, ...args].join(" "),
            detail: `ended with ${output.code ?? output.signal}: ${(output.stderr || output.stdout).trim()}`
          })
        )
  )

/** Reports the end when the last output is read, or soon after where a grandchild holds the pipes open. */
export const onEnd = (child: ChildProcess, then: (ended: Ended) => void): void => {
  let timer: NodeJS.Timeout | undefined
  child.on("exit", (code, signal) => {
    timer = setTimeout(() => then({ code, signal }), 200)
  })
  child.on("close", (code, signal) => {
    clearTimeout(timer)
    then({ code, signal })
  })
}

/** Starts a child with pipes on all three streams. */
export const start = (command: string, args: ReadonlyArray<string>, options: RunOptions): ChildProcess =>
  spawnChild(command, args, {
    stdio: "pipe",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env }
  })

/**
 * A process that lives as long as its scope, and its output. It never outlives the scope: SIGTERM first, SIGKILL
 * after a grace time. Every wait is bounded.
 */
import type { ChildProcess } from "node:child_process"
import { Effect, type Scope } from "effect"
import { type Ended, LabError, onEnd, type RunOptions, start } from "./Process.ts"
import { patienceMillis } from "./patience.ts"

export interface SpawnOptions extends Omit<RunOptions, "input"> {
  /** Milliseconds from SIGTERM to SIGKILL when the scope closes. Default 2,000. */
  readonly graceMillis?: number
}

export interface Line {
  readonly stream: "stdout" | "stderr"
  readonly text: string
}

export interface Running {
  readonly pid: number
  /** All complete lines so far, of one stream or of both in the order they came. */
  readonly lines: (stream?: Line["stream"]) => ReadonlyArray<string>
  /**
   * The first line that matches, including those already printed. `after` skips so many matching lines.
   * Fails after `timeoutMillis` (default `patienceMillis`), and at once when the process ends without printing it.
   */
  readonly waitForLine: (
    pattern: RegExp | string,
    options?: { readonly stream?: Line["stream"]; readonly after?: number; readonly timeoutMillis?: number }
  ) => Effect.Effect<string, LabError>
  readonly write: (text: string) => Effect.Effect<void>
  readonly closeInput: Effect.Effect<void>
  /** False when the process had already ended. */
  readonly kill: (signal?: NodeJS.Signals) => Effect.Effect<boolean>
  readonly ended: () => Ended | undefined
  /** Waits for the end and the last of the output. Fails after `timeoutMillis` (default `patienceMillis`). */
  readonly wait: (options?: { readonly timeoutMillis?: number }) => Effect.Effect<Ended, LabError>
  /** What the end of the scope does: SIGTERM, then SIGKILL when it has not ended `graceMillis` later. */
  readonly stop: Effect.Effect<void>
}

/** Starts a command that lives until its scope closes. `pid` is the command's where each wrapper before it `exec`s. */
export const spawn = (
  command: string,
  args: ReadonlyArray<string>,
  options: SpawnOptions = {}
): Effect.Effect<Running, LabError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Running, LabError>((resume) => {
      const child = start(command, args, options)
      const operation = options.label ?? [command, ...args].join(" ")
      const running = follow(child, operation, options.graceMillis ?? 2_000)
      child.once("spawn", () => resume(Effect.succeed(running)))
      child.once("error", (error) => resume(Effect.fail(new LabError({ operation, detail: error.message }))))
    }),
    (running) => running.stop
  )

/** Watches a child that was started with pipes. Without a scope: the caller must `stop` it. */
export const follow = (child: ChildProcess, operation: string, graceMillis: number): Running => {
  const lines: Array<Line> = []
  const watchers = new Set<() => void>()
  const wake = () => {
    for (const watcher of [...watchers]) watcher()
  }
  let ended: Ended | undefined
  let closed = false
  for (const stream of ["stdout", "stderr"] as const) {
    let rest = ""
    child[stream]?.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split("\n")
      rest = parts.pop() ?? ""
      for (const part of parts) lines.push({ stream, text: part })
      wake()
    })
    child[stream]?.on("end", () => {
      if (rest !== "") lines.push({ stream, text: rest })
      rest = ""
    })
  }
  child.on("error", () => {})
  child.stdin?.on("error", () => {})
  child.on("exit", (code, signal) => {
    ended = { code, signal }
    wake()
  })
  onEnd(child, () => {
    closed = true
    wake()
  })

  const texts = (stream?: Line["stream"]) =>
    lines.filter((line) => stream === undefined || line.stream === stream).map((line) => line.text)

  /** Checks at once and at every change; `undefined` means not yet. */
  const when = <A>(
    what: string,
    timeoutMillis: number,
    look: () => Effect.Effect<A, LabError> | undefined
  ): Effect.Effect<A, LabError> =>
    Effect.callback<A, LabError>((resume) => {
      const settle = (effect: Effect.Effect<A, LabError>) => {
        forget()
        resume(effect)
      }
      const watcher = () => {
        const found = look()
        if (found !== undefined) settle(found)
      }
      const timer = setTimeout(
        () => settle(failure(`${what} did not come within ${timeoutMillis} ms`)),
        timeoutMillis
      )
      const forget = () => {
        clearTimeout(timer)
        watchers.delete(watcher)
      }
      watchers.add(watcher)
      watcher()
      return Effect.sync(forget)
    })

  const failure = (what: string) =>
    Effect.fail(new LabError({ operation, detail: [what, ...texts().slice(-20)].join("\n  ") }))

  const kill = (signal: NodeJS.Signals = "SIGTERM") =>
    Effect.sync(() => ended === undefined && child.kill(signal))

  const wait: Running["wait"] = (waiting = {}) =>
    when("its end", waiting.timeoutMillis ?? patienceMillis, () =>
      closed && ended !== undefined ? Effect.succeed(ended) : undefined
    )

  const gone = (timeoutMillis: number) =>
    when("its end", timeoutMillis, () => (ended === undefined ? undefined : Effect.void))

  return {
    pid: child.pid ?? -1,
    lines: texts,
    waitForLine: (pattern, waiting = {}) =>
      when(`a line like ${pattern}`, waiting.timeoutMillis ?? patienceMillis, () => {
        const line = texts(waiting.stream)
          .slice(waiting.after ?? 0)
          .find((text) => (typeof pattern === "string" ? text.includes(pattern) : pattern.test(text)))
        if (line !== undefined) return Effect.succeed(line)
        if (closed) return failure(`ended with ${ended?.code ?? ended?.signal} before a line like ${pattern}`)
        return undefined
      }),
    write: (text) => Effect.sync(() => void child.stdin?.write(text)),
    closeInput: Effect.sync(() => void child.stdin?.end()),
    kill,
    ended: () => ended,
    wait,
    stop: kill("SIGTERM").pipe(
      Effect.andThen(gone(graceMillis)),
      Effect.catch(() => Effect.andThen(kill("SIGKILL"), gone(2_000))),
      Effect.ignore,
      Effect.andThen(
        Effect.sync(() => {
          child.stdout?.destroy()
          child.stderr?.destroy()
          child.stdin?.destroy()
        })
      )
    )
  }
}

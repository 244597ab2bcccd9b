/** Runs commands in its own network namespace, one per line of JSON on stdin, and prints how long each took. */
import { spawnSync } from "node:child_process"
import { createInterface } from "node:readline"

export interface Run {
  readonly command: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
  readonly input: string
}

export interface Took {
  readonly micros: number
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

for await (const line of createInterface(process.stdin)) {
  const { command, env, input } = JSON.parse(line) as Run
  const [file = "", ...args] = command
  const begun = process.hrtime.bigint()
  const { status, stderr, stdout } = spawnSync(file, args, { env, input, encoding: "utf8" })
  const micros = Number(process.hrtime.bigint() - begun) / 1000
  process.stdout.write(`${JSON.stringify({ micros, status, stdout, stderr } satisfies Took)}\n`)
}

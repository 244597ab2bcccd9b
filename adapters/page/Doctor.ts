/**
 * What `portmapper doctor` says, for the page. It runs as a process of its own, of a lower priority: it reads the rules
 * of every tool and traces packets of every mapping, which takes seconds where there are many.
 */
import { execFile } from "node:child_process"
import * as Os from "node:os"
import { Clock, Effect, Result, Schema, type Scope } from "effect"
import { cut, type Drop } from "../../src/page/PageRows.ts"
import { PageChecks } from "../../src/page/PageState.ts"

export interface Diagnosis {
  /** `null` before the first time. */
  readonly checks: PageChecks | null
  /** A new map with each diagnosis. */
  readonly drops: ReadonlyMap<string, Drop>
}

export interface Doctor {
  readonly found: () => Diagnosis
  /** Runs it, unless it runs already or has run within this time. */
  readonly ask: (maxAgeMillis: number) => void
}

/** After this long it counts as hanging. */
const timeoutMillis = 120_000

const checkFields = PageChecks.fields.checks.value.fields

const Report = Schema.fromJsonString(
  Schema.Struct({
    checks: Schema.Array(Schema.Struct({ ...checkFields, remedy: Schema.optionalKey(Schema.String) })),
    // Each is the subject of a check as well: of the last ones, in the same order.
    drops: Schema.Array(Schema.Struct({ ports: Schema.Array(Schema.String) }))
  })
)

/** `command` is that of `portmapper doctor --json`; it ends with the scope. */
export const makeDoctor = Effect.fnUntraced(function* (
  command: readonly [string, ...ReadonlyArray<string>]
): Effect.fn.Return<Doctor, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const running = yield* Effect.acquireRelease(
    Effect.sync(() => ({ abort: new AbortController(), isBusy: false, at: Number.NEGATIVE_INFINITY })),
    ({ abort }) => Effect.sync(() => abort.abort())
  )
  let found: Diagnosis = { checks: null, drops: new Map() }
  const now = () => clock.currentTimeMillisUnsafe()
  return {
    found: () => found,
    ask: (maxAgeMillis) => {
      if (running.isBusy || now() - running.at < maxAgeMillis) return
      running.isBusy = true
      run(command, running.abort.signal, (output) => {
        running.isBusy = false
        running.at = now()
        if (!running.abort.signal.aborted) found = diagnosisOf(output, running.at)
      })
    }
  }
})

/** It fails where a check does, and then has written its report all the same. */
const run = (
  [program, ...parameters]: readonly [string, ...ReadonlyArray<string>],
  signal: AbortSignal,
  done: (output: { readonly stdout: string; readonly stderr: string }) => void
): void => {
  const child = execFile(
    program,
    parameters,
    { signal, timeout: timeoutMillis, maxBuffer: 1 << 26 },
    (error, stdout, stderr) => done({ stdout, stderr: stderr || (error?.message ?? "") })
  )
  try {
    if (child.pid !== undefined) Os.setPriority(child.pid, Os.constants.priority.PRIORITY_BELOW_NORMAL)
  } catch {
    // It may have ended already; and it does its work at any priority.
  }
}

const diagnosisOf = (
  { stdout, stderr }: { readonly stdout: string; readonly stderr: string },
  at: number
): Diagnosis => {
  const decoded = Schema.decodeUnknownResult(Report)(stdout)
  if (Result.isFailure(decoded)) {
    const why = stderr.trim().split("\n")[0] || "it wrote no report"
    const check = { name: "doctor", status: "warn", found: cut(why), remedy: "portmapper doctor" } as const
    return { checks: { at, checks: [check] }, drops: new Map() }
  }
  const { checks, drops } = decoded.success
  const subjects = checks.slice(checks.length - drops.length)
  return {
    checks: {
      at,
      checks: checks.map(({ name, status, found, remedy }) => ({
        ...{ name: cut(name), status, found: cut(found) },
        remedy: remedy === undefined ? null : cut(remedy)
      }))
    },
    drops: new Map(
      drops.flatMap(({ ports }, index) =>
        ports.map((port) => {
          const { found = "", remedy = "" } = subjects[index] ?? {}
          return [port, { reason: found, remedy }] as const
        })
      )
    )
  }
}

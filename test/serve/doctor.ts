/** Runs `portmapper doctor --json` inside a lab. */
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import type { Namespace } from "../lab/Namespace.ts"
import type { LabError } from "../lab/Process.ts"

export interface Told {
  readonly drops: ReadonlyArray<{
    readonly table: string
    readonly chain: string
    readonly rule: string
    readonly traffic: string
    readonly ports: ReadonlyArray<string>
    readonly remedy: string
  }>
  readonly checks: ReadonlyArray<{ readonly name: string; readonly status: string; readonly found: string }>
}

/** `socket` is the plugin's, or a path without a plugin. */
export const doctor = (host: Namespace, socket: string): Effect.Effect<Told, LabError> =>
  Effect.map(
    host.check(process.execPath, [executable, "doctor", "--json", "--socket", socket]),
    (text) => JSON.parse(text) as Told
  )

const executable = fileURLToPath(new URL("../../adapters/cli/main.ts", import.meta.url))

/**
 * A flood of one port from inside a namespace: idle TCP connections, or UDP packets from as many source ports. Bounded by
 * its count; everything ends with the scope, or once `stop` returns.
 */
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"
import type { Namespace } from "./Namespace.ts"
import type { LabError } from "./Process.ts"
import type { Running } from "./Running.ts"

export interface FloodOptions {
  readonly protocol: "tcp" | "udp"
  readonly host: string
  readonly port: number
  /** How many connections to begin, or sources that send a packet. At most 12,000. */
  readonly count: number
}

export interface Flood {
  /** Waits until everything was begun or sent. Does not repeat connections that are refused or reset. */
  readonly sent: Effect.Effect<void, LabError>
  readonly stop: Running["stop"]
}

export const flood = Effect.fn("Flood.flood")(function* (
  from: Namespace,
  options: FloodOptions
): Effect.fn.Return<Flood, LabError, Scope.Scope> {
  const running = yield* from.spawn(process.execPath, [program, JSON.stringify(options)], {
    label: `flood of ${options.protocol} port ${options.port}`
  })
  return {
    sent: Effect.asVoid(running.waitForLine("sent", { timeoutMillis: 60_000 })),
    stop: running.stop
  }
})

const program = fileURLToPath(new URL("./flood-process.ts", import.meta.url))

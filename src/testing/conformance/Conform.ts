/** Runs the checks against a plugin and returns their results. Unmaps after each check whatever it mapped. */
import { Effect, Result } from "effect"
import { type Check, checks, handshake } from "./Checks.ts"
import { backend, entry, Probe, type Stop } from "./Probe.ts"
import { randomRun } from "./RandomRun.ts"
import type { Exchange, NoAnswer, Wire } from "./Wire.ts"

export interface ConformOptions {
  /** Whether `Plugin.Activate` may be sent: a live plugin takes it for the start of an Engine. */
  readonly activate: boolean
  readonly seed: number
  /** The number of random runs; they follow only if all checks pass. */
  readonly runs: number
  /** Runs after each check. */
  readonly onChecked?: (checked: Checked) => Effect.Effect<void>
}

export type CheckResult = "holds" | "broken" | "skipped"

export interface Checked {
  readonly id: string
  readonly holds: string
  readonly required: boolean
  readonly standing: CheckResult
  /** Why the check failed or was skipped; otherwise `""`. */
  readonly why: string
  /** For a failed check: all its exchanges, in order. */
  readonly exchanges: ReadonlyArray<Exchange>
}

export interface Conformance {
  /** Whether every required check passed. */
  readonly conforms: boolean
  readonly seed: number
  readonly checked: ReadonlyArray<Checked>
}

export const conform = Effect.fnUntraced(function* (
  wire: Wire,
  options: ConformOptions
): Effect.fn.Return<Conformance, NoAnswer> {
  // Fails early if no plugin answers.
  yield* new Probe(wire, 0).map({ Reqs: null, Labels: null })
  // Below the ephemeral ports, away from commonly used ones, and different for every seed.
  const firstPort = 20000 + (Math.abs(options.seed) % 97) * 100
  let probe = new Probe(wire, firstPort)
  const checked: Array<Checked> = []

  const one = Effect.fnUntraced(function* (check: Check) {
    probe = new Probe(wire, probe.port())
    const { takeBack, exchanges } = probe
    const result: Result.Result<void, Stop> = yield* Effect.result(check.run(probe)).pipe(
      Effect.onInterrupt(() => takeBack)
    )
    const asked = [...exchanges]
    yield* takeBack
    const { id, holds, required } = check
    yield* note({ id, holds, required, ...resultOf(result, asked) })
  })
  const note = (each: Checked) =>
    Effect.suspend(() => {
      checked.push(each)
      return options.onChecked === undefined ? Effect.void : options.onChecked(each)
    })
  const skipped = ({ id, holds, required }: Check, why: string) =>
    note({ id, holds, required, standing: "skipped", why, exchanges: [] })

  if (options.activate) yield* one(handshake)
  else yield* skipped(handshake, "a live plugin is not activated unless requested")

  const givesPorts = yield* hasHostPorts(probe)
  for (const check of checks) {
    if (givesPorts || !check.needsPorts) yield* one(check)
    else yield* skipped(check, "it gives out no host ports")
  }
  if (options.runs > 0 && givesPorts) {
    const random = randomRun(options.seed, options.runs)
    if (checked.some(({ standing }) => standing === "broken"))
      yield* skipped(random, "the broken checks would break it too")
    else yield* one(random)
  }
  return {
    conforms: checked.every(({ required, standing }) => !required || standing !== "broken"),
    seed: options.seed,
    checked
  }
})

const resultOf = (result: Result.Result<void, Stop>, exchanges: ReadonlyArray<Exchange>) => {
  if (Result.isSuccess(result)) return { standing: "holds", why: "", exchanges: [] } as const
  const stop = result.failure
  switch (stop._tag) {
    case "Skipped":
      return { standing: "skipped", why: stop.why, exchanges: [] } as const
    case "Broken":
      return { standing: "broken", why: stop.why, exchanges } as const
    case "NoAnswer":
      return { standing: "broken", why: `no answer: ${stop.message}`, exchanges } as const
  }
}

/** A plugin that only supports routing answers port 0 to a request for any port. */
const hasHostPorts = (probe: Probe): Effect.Effect<boolean> =>
  Effect.gen(function* () {
    const mapped = yield* Effect.result(probe.mapGroup([entry("0.0.0.0", backend(0), 0)])).pipe(
      Effect.onExit(() => probe.takeBack)
    )
    return !(
      Result.isSuccess(mapped) &&
      mapped.success._tag === "Granted" &&
      mapped.success.bindings[0]?.FrontendPort === 0 &&
      mapped.success.bindings[0].AllowForwarding
    )
  })

/**
 * Random calls on a few ports, each compared with a list of what is mapped: finds what the single checks do not
 * cover.
 */
import { Effect } from "effect"
import fc from "fast-check"
import type { WireBinding } from "../Target.ts"
import type { Check } from "./Checks.ts"
import { backend, broken, entry, type Probe, type Stop } from "./Probe.ts"

type Act =
  | { readonly do: "map"; readonly host: "0.0.0.0" | "::"; readonly to: number; readonly at: number }
  | { readonly do: "unmap"; readonly at: number }

const acts: fc.Arbitrary<ReadonlyArray<Act>> = fc.array(
  fc.oneof(
    fc.record({
      do: fc.constant("map" as const),
      host: fc.constant("0.0.0.0" as const),
      to: fc.nat({ max: 2 }),
      at: fc.nat({ max: 2 })
    }),
    fc.record({ do: fc.constant("unmap" as const), at: fc.nat({ max: 2 }) })
  ),
  { minLength: 4, maxLength: 12, size: "max" }
)

export const randomRun = (seed: number, runs: number): Check => ({
  id: "random-runs",
  holds: `${runs} runs of random calls (seed ${seed}) are answered as a list of the mappings predicts`,
  required: true,
  needsPorts: true,
  run: (probe) =>
    Effect.forEach(fc.sample(acts, { seed, numRuns: runs }), (each) => play(probe, each), { discard: true })
})

const play = Effect.fnUntraced(function* (
  probe: Probe,
  script: ReadonlyArray<Act>
): Effect.fn.Return<void, Stop> {
  const ports = [probe.port(), probe.port(), probe.port()]
  const mapped = new Map<number, { readonly to: number; readonly bindings: ReadonlyArray<WireBinding> }>()
  for (const act of script) {
    const port = ports[act.at] ?? 0
    const held = mapped.get(port)
    if (act.do === "unmap") {
      if (held !== undefined) yield* probe.unmap(held.bindings)
      mapped.delete(port)
      continue
    }
    const answer = yield* probe.mapGroup([entry(act.host, backend(60 + act.to), port)])
    const free = held === undefined || held.to === act.to
    if (answer._tag === "Granted" && !free) return yield* broken(`port ${port} was granted twice`)
    if (answer._tag === "Refused" && free) return yield* broken(`port ${port} is free, but: ${answer.text}`)
    if (answer._tag === "Granted") mapped.set(port, { to: act.to, bindings: answer.bindings })
  }
  yield* probe.takeBack
})

/**
 * `MapGroups` compared with `MapPorts` for each group: the same answers and the same resources, all of them or none.
 */
import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import {
  type Call,
  type Ended,
  type Fate,
  type HostHoldings,
  labels,
  type ModelHost,
  memoryTarget,
  reqs,
  type SyncTarget,
  type WireMapRequest
} from "../../src/testing/index.ts"
import { hosts } from "./hosts.ts"
import { runs, search, seed } from "./seed.ts"

console.log(`the seed of several groups at once: PORTMAPPER_SEED=${seed}`)

interface Asked {
  /** Mapped before the call. */
  readonly before: ReadonlyArray<WireMapRequest>
  readonly groups: ReadonlyArray<WireMapRequest>
  readonly fate: Fate
}

const request: fc.Arbitrary<WireMapRequest> = fc.record({ Reqs: reqs, Labels: labels })

const asked: fc.Arbitrary<Asked> = fc.record({
  before: fc.array(request, { maxLength: 2 }),
  groups: fc.array(request, { minLength: 1, maxLength: 4, size: "max" }),
  fate: fc.oneof(
    { weight: 2, arbitrary: fc.constant<Fate>(undefined) },
    {
      weight: 3,
      arbitrary: fc.record({
        how: fc.constantFrom("fail" as const, "interrupt" as const),
        at: fc.integer({ min: 1, max: 20 })
      })
    },
    { weight: 1, arbitrary: fc.constant<Fate>({ how: "lose" }) }
  )
})

const mapCall = (value: unknown, method: Call["method"] = "PortMapper.MapPorts"): Call => ({
  method,
  value,
  owner: "engine"
})

const worldWith = (host: ModelHost, before: ReadonlyArray<WireMapRequest>): SyncTarget => {
  const target = memoryTarget(host)
  for (const each of before) target.call(mapCall(each), undefined)
  return target
}

/** Ignores the difference of a record left at `applied` by a failure after the answer. */
const textOf = ({ rules, routes, sockets, stored }: HostHoldings): string =>
  JSON.stringify(
    { rules, routes, sockets, stored: stored.map((line) => line.replace(/ (applied|answered)$/, "")) },
    null,
    1
  )

/** What differs, as text. */
const problemOf = (host: ModelHost, { before, groups, fate }: Asked): string | undefined => {
  const together = worldWith(host, before)
  const untouched = textOf(together.world.held())
  const ended = together.call(mapCall({ Groups: groups }, "PortMapper.MapGroups"), fate)
  const held = textOf(together.world.held())
  if (ended.outcome._tag === "Hung" || ended.outcome._tag === "Broken") return JSON.stringify(ended.outcome)
  if (ended.outcome._tag !== "Answered") {
    // The failure may have hit a rollback: what that could not undo belongs to no mapping, and is evicted.
    if (fate?.how === "fail" && isRefused(host, before, groups)) return undefined
    if (held !== untouched) return `not answered, it left ${held} of ${untouched}`
    return fate === undefined ? refusalProblem(host, before, groups, ended) : undefined
  }
  const apart = worldWith(host, before)
  const answers = groups.map((group) => apart.call(mapCall(group), undefined).outcome)
  const expected = answers.map((outcome) => (outcome._tag === "Answered" ? outcome.answer : outcome))
  const given = (ended.outcome.answer as { readonly Groups: unknown }).Groups
  if (JSON.stringify(given) !== JSON.stringify(expected))
    return `${JSON.stringify(given)} together, ${JSON.stringify(expected)} apart`
  // Where the answer is lost: compare with single calls whose answers are all lost.
  const losing = worldWith(host, before)
  if (fate?.how === "lose") for (const group of groups) losing.call(mapCall(group), fate)
  const heldApart = textOf((fate?.how === "lose" ? losing : apart).world.held())
  return held === heldApart ? undefined : `${held} together, ${heldApart} apart`
}

const isRefused = (
  host: ModelHost,
  before: ReadonlyArray<WireMapRequest>,
  groups: ReadonlyArray<WireMapRequest>
): boolean =>
  worldWith(host, before).call(mapCall({ Groups: groups }, "PortMapper.MapGroups"), undefined).outcome
    ._tag !== "Answered"

/** The group named in the error must be one that is refused by itself as well. */
const refusalProblem = (
  host: ModelHost,
  before: ReadonlyArray<WireMapRequest>,
  groups: ReadonlyArray<WireMapRequest>,
  { outcome }: Ended
): string | undefined => {
  const apart = worldWith(host, before)
  const refused = groups.map((group) => apart.call(mapCall(group), undefined).outcome._tag === "Refused")
  const text = outcome._tag === "Refused" ? outcome.text : JSON.stringify(outcome)
  const named = Number(/Groups\[(\d+)\]/.exec(text)?.[1] ?? -1)
  return refused[named] ? undefined : `${text}: refused apart: ${refused}`
}

describe("several groups in one call, compared with single calls", () => {
  for (const [name, host] of Object.entries(hosts))
    it(`have the same result on a host of ${name}`, () => {
      const { found } = search((from) => {
        const { counterexample } = fc.check(
          fc.property(asked, (each) => problemOf(host, each) === undefined),
          { seed: from, numRuns: runs }
        )
        return counterexample?.[0]
      })
      if (found !== undefined) assert.fail(`${JSON.stringify(found)}: ${problemOf(host, found)}`)
    })
})

import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric } from "effect"
import { trafficTotals } from "../../adapters/docker/TrafficTotals.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { noneRefused } from "../../src/protocol/Limits.ts"
import { listedMapping } from "../support/mappings.ts"

const connections = (port: number, count: number | undefined, more: Partial<ListedMapping> = {}) =>
  listedMapping({ frontendPort: port, connections: count, ...more })

/** The sum of connections, and of what was refused by `allow`, after each list of mappings. */
const totals = (...lists: ReadonlyArray<ReadonlyArray<ListedMapping>>) =>
  Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const add = trafficTotals(context)
    const sumOf = (id: string, reason?: string) =>
      Metric.snapshotUnsafe(context)
        .filter((each) => each.id === id && (reason === undefined || each.attributes?.["reason"] === reason))
        .reduce((sum, { state }) => sum + Number((state as { readonly count: number }).count), 0)
    return lists.map((list) => {
      add(list)
      return [sumOf("portmapper_connections_total"), sumOf("portmapper_refused_total", "allow")]
    })
  }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))

describe("the totals of traffic", () => {
  it.effect("add what each mapping had since the last list, and keep it once it is unmapped", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        (yield* totals(
          [connections(1, 5), connections(2, 1)],
          [connections(1, 7), connections(2, 1)],
          [connections(2, 2)],
          []
        )).map(([sum]) => sum),
        [6, 8, 9, 9]
      )
    })
  )

  it.effect("count a mapping anew whose count fell, since it is another one", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        (yield* totals([connections(1, 5)], [connections(1, 2)], [connections(1, 3)])).map(([sum]) => sum),
        [5, 7, 8]
      )
    })
  )

  it.effect("go on from the last count where one could not be read", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        (yield* totals([connections(1, 5)], [connections(1, undefined)], [connections(1, 6)])).map(
          ([sum]) => sum
        ),
        [5, 5, 6]
      )
    })
  )

  it.effect("count what was refused by its reason", () =>
    Effect.gen(function* () {
      const refused = (allow: number) => connections(1, 0, { refused: { ...noneRefused, allow, rate: 9 } })
      assert.deepStrictEqual(
        (yield* totals([refused(3)], [refused(4)])).map(([, sum]) => sum),
        [3, 4]
      )
    })
  )
})

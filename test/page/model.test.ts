import { assert, describe, it } from "@effect/vitest"
import { applyChange, fromState, historyOf } from "../../adapters/page/app/model.ts"
import type { PageChange, PageEvent } from "../../src/page/PageState.ts"
import { hostOf, modelOf, rowOf, stateOf } from "./rows.ts"

const changeOf = (at: number, more: Partial<PageChange> = {}): PageChange => ({
  sequence: at / 1000,
  at,
  host: hostOf(),
  rows: [],
  gone: [],
  counts: [],
  events: [],
  checks: null,
  ...more
})

const eventOf = (id: number): PageEvent => ({
  id,
  at: id,
  kind: "mapped",
  text: `${id}`,
  key: null,
  owner: null
})

describe("the page's model", () => {
  it("takes new rows, counts, and what is gone", () => {
    const model = applyChange(
      modelOf(rowOf(1), rowOf(2), rowOf(3)),
      changeOf(2000, {
        rows: [rowOf(4), rowOf(2, { state: "conflicted" })],
        gone: [1],
        counts: [
          [3, 7, 8, 9, 1, 2, 3],
          [99, 1, 1, 1, 1, 1, 1]
        ]
      })
    )
    assert.deepStrictEqual(
      [...model.rows.values()].map(({ id, state, connections, bytesOutRate }) => [
        id,
        state,
        connections,
        bytesOutRate
      ]),
      [
        [2, "conflicted", 0, null],
        [3, "live", 7, 3],
        [4, "live", 0, null]
      ]
    )
    assert.strictEqual(model.sequence, 2)
  })

  it("keeps the history of two minutes, and 200 events", () => {
    let model = modelOf()
    for (let second = 2; second < 302; second++)
      model = applyChange(
        model,
        changeOf(second * 1000, { host: hostOf({ connectionsRate: second }), events: [eventOf(second)] })
      )
    assert.strictEqual(model.history.length, 121)
    assert.deepStrictEqual(model.history.at(-1), [301_000, 301, null, null])
    assert.deepStrictEqual([model.events.length, model.events.at(-1)?.id], [200, 301])
  })

  it("goes on after a restart of the plugin: history and events stay, rows are the new ones", () => {
    const before = fromState(
      stateOf([rowOf(1)], {
        history: [
          [1000, 5, null, null],
          [2000, 6, null, null]
        ],
        events: [eventOf(1)],
        at: 2000
      })
    )
    const after = fromState(
      stateOf([rowOf(1, { port: 9000 })], {
        epoch: "b",
        at: 4000,
        history: [[4000, 0, null, null]],
        events: [eventOf(1)]
      }),
      before
    )
    assert.deepStrictEqual(
      after.history.map(([at]) => at),
      [1000, 2000, 4000]
    )
    assert.deepStrictEqual(
      after.events.map(({ epoch, id }) => `${epoch}${id}`),
      ["a1", "b1"]
    )
    assert.deepStrictEqual(
      [...after.rows.values()].map(({ port }) => port),
      [9000]
    )
    // The same state again, as after a lost connection, doubles nothing.
    assert.strictEqual(fromState(stateOf([], { events: [eventOf(1)] }), before).events.length, 1)
  })

  it("makes a row's history from the changes that name it", () => {
    let model = modelOf(rowOf(1), rowOf(2))
    model = applyChange(model, changeOf(2000, { counts: [[1, 10, 0, 0, 10, 100, 200]] }))
    model = applyChange(model, changeOf(3000, { counts: [[2, 1, 0, 0, 1, 0, 0]] }))
    model = applyChange(model, changeOf(4000, { rows: [rowOf(1, { connectionsRate: 0 })] }))
    assert.deepStrictEqual(historyOf(model, 1), [
      [2000, 10, 100, 200],
      [3000, 10, 100, 200],
      [4000, 0, null, null]
    ])
    assert.deepStrictEqual(historyOf(model, 3), [
      [2000, 0, 0, 0],
      [3000, 0, 0, 0],
      [4000, 0, 0, 0]
    ])
  })
})

import { assert, describe, it } from "@effect/vitest"
import { PageView } from "../../src/page/PageView.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { listed } from "./listed.ts"

const context = { drops: new Map(), reaching: "" }

const looking = () => {
  const view = new PageView()
  let before = Number.NEGATIVE_INFINITY
  return {
    view,
    look: (at: number, ...mappings: ReadonlyArray<ListedMapping>) => {
      const elapsedMillis = at - before
      before = at
      return view.look({ at, elapsedMillis, listed: mappings, context })
    }
  }
}

const counted = (connections: number, bytesIn?: number) => listed(8080, { connections, bytesIn })

describe("the view of a page", () => {
  it("counts what is new between two looks, per second, and nothing at the first", () => {
    const { view, look } = looking()
    const first = look(0, counted(100, 5000))
    assert.deepStrictEqual(
      first.rows.map(({ connections, connectionsRate, bytesInRate, bytesOut }) => [
        connections,
        connectionsRate,
        bytesInRate,
        bytesOut
      ]),
      [[100, null, null, null]]
    )
    const second = look(2000, counted(105, 5100))
    assert.deepStrictEqual(second.rows, [])
    assert.deepStrictEqual(second.counts, [[1, 105, 5100, null, 2.5, 50, null]])
    // The rate falls to 0 once, and then nothing changes any more.
    assert.deepStrictEqual(look(3000, counted(105, 5100)).counts, [[1, 105, 5100, null, 0, 0, null]])
    assert.deepStrictEqual(look(4000, counted(105, 5100)).counts, [])
    // Another mapping in its place began at 0.
    assert.deepStrictEqual(look(5000, counted(3, 10)).counts, [[1, 3, 10, null, 3, 10, null]])
    assert.deepStrictEqual(view.history, [
      [0, null, null, null],
      [2000, 2.5, 50, null],
      [3000, 0, 0, null],
      [4000, 0, 0, null],
      [5000, 3, 10, null]
    ])
  })

  it("has right rates where the host's clock is set meanwhile", () => {
    const { view, look } = looking()
    look(500_000, counted(0))
    const set = { at: 100_000, elapsedMillis: 2000, listed: [counted(10)], context }
    assert.strictEqual(view.look(set).host.connectionsRate, 5)
    assert.deepStrictEqual(view.history, [[100_000, 5, null, null]])
  })

  it("has no rate after a pause, and the history of two minutes", () => {
    const { view, look } = looking()
    look(0, counted(1))
    look(1000, counted(2))
    const { host } = look(100_000, counted(1000))
    assert.isNull(host.connectionsRate)
    look(121_000, counted(1000))
    assert.deepStrictEqual(
      view.history.map(([at]) => at),
      [100_000, 121_000]
    )
  })

  it("counts a mapping that came between two looks from 0, and leaves one that went out of the rates", () => {
    const { look } = looking()
    look(0, counted(10))
    const { rows, gone, host } = look(1000, listed(8081, { connections: 4 }))
    assert.deepStrictEqual([rows.map(({ connectionsRate }) => connectionsRate), gone], [[4], [1]])
    assert.deepStrictEqual([host.connections, host.connectionsRate], [4, 4])
  })

  it("sums what is counted, and nothing where nothing is", () => {
    const { look } = looking()
    const routed = listed(0, { mode: "routed", connections: undefined })
    look(0, counted(10, 7), routed)
    const { host } = look(1000, counted(12, 8), routed)
    assert.deepStrictEqual(host, {
      mappings: 2,
      problems: 0,
      connections: 12,
      bytesIn: 8,
      bytesOut: null,
      connectionsRate: 2,
      bytesInRate: 1,
      bytesOutRate: null
    })
    assert.isNull(look(2000, routed).host.connections)
    assert.strictEqual(look(3000).host.connections, 0)
  })

  it("replaces a row of which more has changed, and reports what turns to and from a conflict", () => {
    const { look } = looking()
    look(0, listed(8080))
    const conflicted = look(1000, listed(8080, { state: "conflicted", reason: "taken" }))
    assert.deepStrictEqual(
      [conflicted.rows.map(({ id, state }) => [id, state]), conflicted.turned.map(({ to }) => to)],
      [[[1, "conflicted"]], ["conflicted"]]
    )
    assert.strictEqual(conflicted.host.problems, 1)
    assert.deepStrictEqual(
      look(2000, listed(8080)).turned.map(({ to }) => to),
      ["served"]
    )
    const changes: ReadonlyArray<Partial<ListedMapping>> = [
      { owner: "cli" },
      { mode: "proxy" },
      { sinceMillis: 5 },
      { service: "web" },
      { container: "a" },
      { slots: { has: 1, of: 64 } },
      { carriers: { socket: true, kernel: false, relay: undefined } },
      { carriers: { socket: true, kernel: false, relay: "everything" } },
      { refused: { rate: 1 } },
      { labels: new Map([["a", "b"]]) },
      { labels: new Map([["a", "c"]]) }
    ]
    for (const [at, change] of changes.entries())
      assert.deepStrictEqual(look(3000 + at, listed(8080, change)).rows.length, 1, JSON.stringify(change))
    const same = { labels: new Map([["a", "c"]]) }
    assert.deepStrictEqual(look(4000, listed(8080, same)).rows, [])
  })

  it("keeps two rows apart that nothing tells apart", () => {
    const { view, look } = looking()
    look(0, counted(1), counted(2))
    assert.deepStrictEqual(
      view.rows.map(({ id, key }) => `${id} ${key}`),
      ["1 tcp 0.0.0.0:8080 172.17.0.2:80", "2 tcp 0.0.0.0:8080 172.17.0.2:80 2"]
    )
    assert.deepStrictEqual(look(1000, counted(1), counted(2)).gone, [])
    assert.deepStrictEqual(look(2000, counted(1)).gone, [2])
  })

  it("describes every row anew where doctor found something else", () => {
    const { view } = looking()
    const look = { at: 0, elapsedMillis: 1000, listed: [listed(1), listed(2)] }
    view.look({ ...look, context })
    const drops = new Map([["0.0.0.0:2/tcp", { reason: "dropped", remedy: "let it in" }]])
    const { rows, host } = view.look({ ...look, at: 1, context: { ...context, drops } })
    assert.deepStrictEqual(
      [rows.map(({ problem }) => problem?.reason), host.problems],
      [[undefined, "dropped"], 1]
    )
  })
})

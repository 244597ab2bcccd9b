import "./english.ts"
import { assert, describe, it } from "@effect/vitest"
import { arrange } from "../../../adapters/page/app/arrange.ts"
import { columns, plainView, type View } from "../../../adapters/page/app/hash.ts"
import { HeaderRow, Line } from "../../../adapters/page/app/Rows.tsx"
import type { PageRow } from "../../../src/page/PageState.ts"
import { rowOf, rowsOf } from "../rows.ts"
import { html, texts } from "./rendered.ts"

/** The lines of a list, as HTML. */
const lines = (rows: ReadonlyArray<PageRow>, view: Partial<View> = {}) =>
  arrange(rowsOf(...rows), { ...plainView, ...view }).map((item, index) =>
    html(Line, {
      ...{ item, index, start: 34 * index, isActive: index === 0, isChosen: false },
      measure: () => undefined,
      onOpen: () => undefined
    })
  )

const cells = (line = "") => texts(line, "td")
const classOf = (line = "") => /class="([^"]*)"/.exec(line)?.[1]?.trim()

describe("a line of the list", () => {
  it("has a cell for each column, with a dash for what this host does not count", () => {
    const [line] = lines([
      rowOf(1, { connections: 123_456, connectionsRate: 2, bytesIn: 1000, bytesOut: null })
    ])
    const [frontend, backend, mode, owner, state, , connections, rate, bytes, traffic] = cells(line)
    assert.deepStrictEqual(
      [frontend, backend, mode, owner, state, connections, rate, bytes, traffic],
      ["0.0.0.0:8001/tcp", "172.31.0.2:80", "nat", "cli", "live", "123k", "2/s", "1 kB", "–"]
    )
    assert.lengthOf(cells(line), columns.length)
    assert.include(line, 'aria-rowindex="2"')
  })

  it("says below the columns what is wrong, and what helps", () => {
    const problem = { severity: "error", reason: "<b>taken\u001b", remedy: "ss" } as const
    const [line] = lines([rowOf(1, { problem })])
    assert.deepStrictEqual(cells(line).slice(columns.length), ["<b>taken\\u001bss"])
    assert.include(line, "&lt;b>")
    assert.strictEqual(classOf(line), "row  error")
  })

  it("of a service counts its backends, which stand below it without its port", () => {
    const service = { port: 443, service: "web", connections: 2 }
    const [total, first, second] = lines([
      rowOf(1, { ...service, key: "a" }),
      rowOf(2, { ...service, key: "b", problem: { severity: "warning", reason: "stale", remedy: null } })
    ])
    assert.deepStrictEqual([total, first, second].map(classOf), [
      "service  warning",
      "row below",
      "row below warning"
    ])
    assert.deepStrictEqual(cells(total).slice(0, 2), ["0.0.0.0:443/tcp", "web 2 backends"])
    // A service names the reason at its backend alone.
    assert.lengthOf(cells(total), columns.length)
    assert.match(first ?? "", /<bdi class="unseen">/)
  })

  it("of a group is one cell with its name and its size, and opens nothing", () => {
    const [group] = lines([rowOf(1), rowOf(2)], { group: "owner" })
    assert.deepStrictEqual([cells(group), classOf(group)], [["cli 2"], "group"])
  })
})

describe("the headings of the list", () => {
  it("name the order to those who do not see it", () => {
    const sorted = (isDescending: boolean) =>
      [...html(HeaderRow, { sort: "owner" as const, isDescending }).matchAll(/aria-sort="(\w+)"/g)].map(
        ([, order]) => order
      )
    const at = columns.indexOf("owner")
    assert.deepStrictEqual(
      sorted(true),
      columns.map((_, index) => (index === at ? "descending" : "none"))
    )
    assert.strictEqual(sorted(false)[at], "ascending")
  })
})

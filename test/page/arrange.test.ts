import { assert, describe, it } from "@effect/vitest"
import { arrange, type Item } from "../../adapters/page/app/arrange.ts"
import { plainView, type View } from "../../adapters/page/app/hash.ts"
import type { Row } from "../../adapters/page/app/model.ts"
import type { PageRow } from "../../src/page/PageState.ts"
import { rowOf, rowsOf } from "./rows.ts"

const backend = (container: string | null, address = "172.31.0.2"): PageRow["backend"] => ({
  address,
  port: 80,
  container,
  slots: null
})
const error: PageRow["problem"] = { severity: "error", reason: "address already in use", remedy: "ss" }
const warning: PageRow["problem"] = { severity: "warning", reason: "is stale", remedy: null }

const texts = (rows: ReadonlyArray<Row>, view: Partial<View> = {}): ReadonlyArray<string> =>
  arrange(rows, { ...plainView, ...view }).map(textOf)

const textOf = (item: Item): string => {
  if (item.kind === "group") return `${item.name}: ${item.count}`
  if (item.kind === "service") return `${item.name} ${item.total.port} ${item.total.connections}`
  return `${item.isBelow ? "  " : ""}${item.row.port}`
}

describe("the page's list", () => {
  it("sorts by port, and begins with what is wrong, errors before warnings", () => {
    const rows = rowsOf(
      rowOf(1, { port: 10_000 }),
      rowOf(2, { port: 0 }),
      rowOf(3, { port: 9000 }),
      rowOf(4, { port: 9500, problem: warning }),
      rowOf(5, { port: 9900, problem: error })
    )
    assert.deepStrictEqual(texts(rows), ["9900", "9500", "9000", "10000", "0"])
    assert.deepStrictEqual(texts(rows, { isDescending: true }), ["9900", "9500", "0", "10000", "9000"])
  })

  it("finds the rows that have every word somewhere, whatever the case", () => {
    const rows = rowsOf(
      rowOf(1, { backend: backend("Web-1") }),
      rowOf(2, { backend: backend("web-2"), labels: [{ name: "portmapper.allow", value: "10.0.0.0/8" }] }),
      rowOf(3, { problem: error }),
      rowOf(4, { protocol: "udp", address: "::1" })
    )
    const found = (filter: string) => texts(rows, { filter })
    assert.deepStrictEqual(found(" WEB "), ["8001", "8002"])
    assert.deepStrictEqual(found("web allow=10."), ["8002"])
    assert.deepStrictEqual(found("in use"), ["8003"])
    assert.deepStrictEqual(found("[::1]:8004/udp"), ["8004"])
    assert.deepStrictEqual(found("web udp"), [])
  })

  it("puts a service above its backends, with their sums, in the place of its worst backend", () => {
    const rows = rowsOf(
      rowOf(1, { port: 80, connections: 1000 }),
      rowOf(2, {
        port: 443,
        service: "web",
        connections: 1,
        backend: backend("web-2"),
        problem: error,
        key: "b"
      }),
      rowOf(3, { port: 443, service: "web", connections: 2, backend: backend("web-1"), key: "a" }),
      rowOf(4, { port: 443, service: "web", connections: null, protocol: "udp", key: "c" })
    )
    assert.deepStrictEqual(texts(rows), ["web 443 3", "  443", "  443", "80", "web 443 null", "  443"])
    assert.deepStrictEqual(texts(rows, { sort: "connections", isDescending: true }), [
      "web 443 3",
      "  443",
      "  443",
      "80",
      "web 443 null",
      "  443"
    ])
  })

  it("groups by container and by owner, and leaves what is wrong on top", () => {
    const rows = rowsOf(
      rowOf(1, { backend: backend("b"), owner: "watch" }),
      rowOf(2, { backend: backend("a") }),
      rowOf(3),
      rowOf(4, { backend: backend("Wrong") }),
      rowOf(5, { backend: backend("a"), problem: warning })
    )
    assert.deepStrictEqual(texts(rows, { group: "container" }), [
      "Wrong: 1",
      "8005",
      "No container: 1",
      "8003",
      "a: 1",
      "8002",
      "b: 1",
      "8001",
      "Wrong: 1",
      "8004"
    ])
    assert.deepStrictEqual(
      texts(rows, { group: "owner" }).filter((text) => text.includes(":")),
      ["Wrong: 1", "cli: 3", "watch: 1"]
    )
  })

  it("gives every line a key of its own that an order does not change", () => {
    const rows = rowsOf(rowOf(1), rowOf(2, { service: "s" }), rowOf(3, { problem: error }))
    for (const group of ["none", "owner"] as const) {
      const keys = (isDescending: boolean) =>
        arrange(rows, { ...plainView, group, isDescending }).map(({ key }) => key)
      assert.strictEqual(new Set(keys(false)).size, keys(false).length)
      assert.deepStrictEqual(keys(false).toSorted(), keys(true).toSorted())
    }
  })
})

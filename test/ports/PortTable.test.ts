import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { type Frontend, PortSet, PortTable } from "../../src/ports/PortTable.ts"
import { addressUnsafe, covers } from "../../src/protocol/Address.ts"

const at = (host: string, protocol: Frontend["protocol"] = "tcp"): Frontend => ({
  protocol,
  host: addressUnsafe(host)
})
const hosts = (addresses: ReadonlyArray<{ readonly text: string }>) =>
  addresses.map(({ text }) => text).sort()

describe("PortTable", () => {
  it("reports conflicts on one port for equal and covering addresses of the same protocol only", () => {
    const table = new PortTable()
    table.add(at("10.0.0.1"), 80)
    table.add(at("10.0.0.2"), 80)
    table.add(at("::"), 81)
    assert.deepStrictEqual(hosts(table.collisions(at("10.0.0.1"), 80)), ["10.0.0.1"])
    assert.deepStrictEqual(hosts(table.collisions(at("0.0.0.0"), 80)), ["10.0.0.1", "10.0.0.2"])
    assert.deepStrictEqual(hosts(table.collisions(at("::ffff:10.0.0.1"), 80)), ["10.0.0.1"])
    assert.deepStrictEqual(hosts(table.collisions(at("fd00::1"), 81)), ["::"])
    assert.deepStrictEqual(table.collisions(at("10.0.0.3"), 80), [])
    assert.deepStrictEqual(table.collisions(at("0.0.0.0", "udp"), 80), [])
    assert.deepStrictEqual(table.collisions(at("0.0.0.0"), 81), [])
    table.delete(at("10.0.0.1"), 80)
    assert.deepStrictEqual(hosts(table.collisions(at("0.0.0.0"), 80)), ["10.0.0.2"])
    table.delete(at("10.0.0.2"), 80)
    assert.deepStrictEqual(table.collisions(at("0.0.0.0"), 80), [])
  })

  it("finds the first port free on all addresses, at the edges of words and of the range", () => {
    const table = new PortTable()
    for (let port = 1; port <= 95; port++) table.add(at("0.0.0.0"), port)
    table.add(at("::"), 96)
    const both = [at("0.0.0.0"), at("::")]
    assert.strictEqual(table.firstFree(both, { first: 1, last: 65535 }, 1), 97)
    assert.strictEqual(table.firstFree([at("0.0.0.0")], { first: 1, last: 65535 }, 1), 96)
    assert.strictEqual(table.firstFree(both, { first: 1, last: 96 }, 1), undefined)
    assert.strictEqual(table.firstFree(both, { first: 65535, last: 65535 }, 65535), 65535)
    assert.strictEqual(
      table.firstFree(both, { first: 97, last: 200 }, 97, [PortSet.of([{ first: 97, last: 128 }])]),
      129
    )
    for (let port = 129; port <= 200; port++) table.add(at("10.0.0.1"), port)
    assert.strictEqual(table.firstFree([at("0.0.0.0")], { first: 129, last: 200 }, 129), undefined)
    assert.strictEqual(table.firstFree([at("10.0.0.2")], { first: 129, last: 200 }, 150), 150)
  })

  const Host = Schema.Literals(["0.0.0.0", "10.0.0.1", "10.0.0.2", "::", "fd00::1"])
  const Step = Schema.Struct({
    add: Schema.Boolean,
    host: Host,
    port: Schema.Int.check(Schema.isBetween({ minimum: 60, maximum: 70 }))
  })
  it.prop("agrees with a list of the added ports", [Schema.Array(Step)], ([steps]) => {
    const table = new PortTable()
    const held = new Set<string>()
    for (const { add, host, port } of steps) {
      if (add) table.add(at(host), port)
      else table.delete(at(host), port)
      if (add) held.add(`${host} ${port}`)
      else held.delete(`${host} ${port}`)
    }
    const collide = (host: string, port: number) =>
      [...held].filter((text) => {
        const [other, taken] = text.split(" ") as [string, string]
        const [a, b] = [addressUnsafe(other), addressUnsafe(host)]
        return Number(taken) === port && (covers(a, b) || covers(b, a))
      })
    for (const host of Host.literals) {
      const free: Array<number> = []
      for (let port = 60; port <= 70; port++) {
        assert.strictEqual(table.collisions(at(host), port).length, collide(host, port).length)
        if (collide(host, port).length === 0) free.push(port)
      }
      for (const from of [60, 63, 64, 70])
        assert.strictEqual(
          table.firstFree([at(host)], { first: 60, last: 70 }, from),
          free.find((port) => port >= from)
        )
    }
  })
})

import { assert, describe, it } from "@effect/vitest"
import type { Block } from "../../src/cluster/Cells.ts"
import { Ledger, type OwnPort } from "../../src/cluster/Ledger.ts"

const claimant = { owner: "engine", backend: "172.17.0.2:80", container: undefined, service: undefined }
const tcp = (port: number) => ({ protocol: "tcp" as const, port, claimant })
const udp = (port: number) => ({ protocol: "udp" as const, port, claimant })
const block = (first: number, last: number): Block => ({ _tag: "Block", first, last })
const claim = (name: string, cell = "0125") => ({ cell, name, revision: 7 })
const nothing = () => false

describe("a ledger", () => {
  it("owes a port once neither a call nor a mapping needs it", () => {
    const ledger = new Ledger()
    ledger.add(tcp(8000), claim("tcp.8000.a"))
    const tickets = new Set<OwnPort>()
    ledger.ticket(tcp(8000), tickets)
    assert.strictEqual(tickets.size, 1)
    ledger.touch([tcp(8000)])
    ledger.take(nothing)
    assert.isTrue(ledger.covers(tcp(8000)))
    ledger.drop(tickets)
    ledger.take(() => true)
    assert.isTrue(ledger.covers(tcp(8000)))
    ledger.touch([tcp(8000)])
    ledger.take(nothing)
    assert.isFalse(ledger.covers(tcp(8000)))
    assert.deepStrictEqual(ledger.returning, [claim("tcp.8000.a")])
    ledger.returned(ledger.returning)
    assert.deepStrictEqual(ledger.returning, [])
  })

  it("owes what a refused call claimed for a service where the port is in use without one", () => {
    const ledger = new Ledger()
    ledger.addBlock(block(40000, 40003), claim("block.40000.a", "0625"))
    ledger.reserve(tcp(40000))
    const shared = { ...tcp(40000), claimant: { ...claimant, service: "engine web" } }
    ledger.add(shared, claim("tcp.40000.a", "0625"))
    ledger.take(() => true)
    assert.isTrue(ledger.covers(tcp(40000)))
    assert.deepStrictEqual(ledger.returning, [claim("tcp.40000.a", "0625")])
  })

  it("counts the calls that want a port anew where another host had it meanwhile", () => {
    const ledger = new Ledger()
    const [before, after] = [new Set<OwnPort>(), new Set<OwnPort>()]
    ledger.add(tcp(8000), claim("tcp.8000.a"))
    ledger.ticket(tcp(8000), before)
    ledger.remove(tcp(8000))
    ledger.add(tcp(8000), claim("tcp.8000.a"))
    ledger.ticket(tcp(8000), after)
    ledger.drop(before)
    ledger.take(nothing)
    assert.isTrue(ledger.covers(tcp(8000)))
    ledger.drop(after)
    ledger.take(nothing)
    assert.deepStrictEqual(ledger.returning, [claim("tcp.8000.a")])
  })

  it("still owes what became owed while the rest was given back", () => {
    const ledger = new Ledger()
    ledger.owe([claim("tcp.8000.a")])
    const givenBack = ledger.returning
    ledger.owe([claim("tcp.8001.a")])
    ledger.returned(givenBack)
    assert.deepStrictEqual(ledger.returning, [claim("tcp.8001.a")])
  })

  it("owes nothing for a port that is not known to be its own", () => {
    const ledger = new Ledger()
    ledger.add(tcp(8000), undefined)
    ledger.touch([tcp(8000)])
    ledger.take(nothing)
    assert.deepStrictEqual([ledger.covers(tcp(8000)), ledger.returning], [false, []])
  })

  it("covers every protocol of a block, and gives out its ports alone", () => {
    const ledger = new Ledger()
    ledger.addBlock(block(8000, 8003), claim("block.8000-8003.a"))
    assert.isTrue(ledger.covers(udp(8003)))
    assert.isFalse(ledger.covers({ ...tcp(8003), claimant: { ...claimant, service: "cli web" } }))
    const outside = ledger.outside("Ephemeral", ["tcp"])
    assert.deepStrictEqual(
      [7999, 8000, 8003, 8004].map((port) => outside.has(port)),
      [true, false, false, true]
    )
  })

  it("gives out of a range what it has claimed in all of the protocols, for no service", () => {
    const ledger = new Ledger()
    ledger.addBlock(block(8000, 8003), claim("block.8000-8003.a"))
    ledger.add(tcp(8010), claim("tcp.8010.a"))
    ledger.add(tcp(8011), claim("tcp.8011.a"))
    ledger.add(udp(8011), claim("udp.8011.a"))
    ledger.add(tcp(8012), claim("tcp.8012.a"))
    ledger.add({ ...udp(8012), claimant: { ...claimant, service: "cli web" } }, claim("udp.8012.a"))
    const outside = ledger.outside("Range", ["tcp", "udp"])
    assert.deepStrictEqual(
      [8003, 8010, 8011, 8012].map((port) => outside.has(port)),
      [false, true, false, true]
    )
  })

  it("counts a port of a block once, whatever protocols and addresses it is reserved in", () => {
    const ledger = new Ledger()
    ledger.reserve(tcp(8000))
    ledger.addBlock(block(8000, 8003), claim("block.8000-8003.a"))
    for (const each of [tcp(8000), udp(8000), tcp(8001)]) ledger.reserve(each)
    assert.deepStrictEqual([ledger.usedOfBlocks, ledger.free], [2, 2])
    for (const each of [tcp(8000), tcp(8000), tcp(8001), tcp(8001)]) ledger.release(each)
    assert.deepStrictEqual([ledger.usedOfBlocks, ledger.free], [1, 3])
    ledger.release(udp(8000))
    assert.deepStrictEqual([ledger.usedOfBlocks, ledger.free], [0, 4])
  })

  it("owes empty blocks beyond what it would take next, and none with a port in use", () => {
    const ledger = new Ledger()
    for (let first = 8000; first < 8032; first += 4)
      ledger.addBlock(block(first, first + 3), claim(`block.${first}-${first + 3}.a`))
    ledger.reserve(tcp(8000))
    ledger.take(nothing)
    assert.strictEqual(ledger.free, 11)
    assert.isTrue(ledger.covers(tcp(8000)))
    assert.strictEqual(ledger.returning.length, 5)
  })

  it("tells others of a container that it learns", () => {
    const ledger = new Ledger()
    ledger.add(tcp(8000), claim("tcp.8000.a"))
    const described = { ...tcp(8000), claimant: { ...claimant, container: "web/0123456789ab" } }
    ledger.describe(tcp(8000))
    assert.deepStrictEqual(
      ledger.ports().map(({ isUnpublished }) => isUnpublished),
      [false]
    )
    ledger.describe(described)
    assert.deepStrictEqual(
      ledger.ports().map(({ isUnpublished, claimant: { container } }) => [isUnpublished, container]),
      [[true, "web/0123456789ab"]]
    )
  })
})

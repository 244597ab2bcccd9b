import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  type Block,
  blockSizeFor,
  cellOf,
  cellsOf,
  claimOf,
  excluderOf,
  freeBlock,
  holderText,
  itemOf,
  lowWater,
  type PortClaim,
  portClaim
} from "../../src/cluster/Cells.ts"
import type { CellState, HeldClaim } from "../../src/cluster/ClusterState.ts"

const cell = cellOf(8000)
const all = { first: 8000, last: 8063 }

const held = (host: string, item: PortClaim | Block): HeldClaim => ({
  ...claimOf(host, item),
  ...{ cell, host, lease: "1", revision: 1 }
})

const wanted = (at: number, service?: string, protocol: "tcp" | "udp" = "tcp") => ({
  ...{ protocol, port: at },
  claimant: { owner: "engine", backend: "172.17.0.2:80", container: undefined, service }
})

const port = (...asked: Parameters<typeof wanted>) => {
  const { claimant, ...at } = wanted(...asked)
  return portClaim(at, claimant, 0)
}

const block = (first: number, last: number): Block => ({ _tag: "Block", first, last })

const state = (...claims: ReadonlyArray<HeldClaim>): Pick<CellState, "claims"> => ({ claims })

describe("a claim", () => {
  it("excludes the same port and protocol of another host, unless both are of one service", () => {
    const claimed = state(held("a", port(8000)), held("a", port(8001, "cli web")))
    const excluded = (each: ReturnType<typeof wanted>) => excluderOf(claimed, "b", each)?.name
    assert.strictEqual(excluded(wanted(8000)), "tcp.8000.a")
    assert.strictEqual(excluded(wanted(8000, "cli web")), "tcp.8000.a")
    assert.strictEqual(excluded(wanted(8001)), "tcp.8001.a")
    assert.strictEqual(excluded(wanted(8001, "watch web")), "tcp.8001.a")
    assert.isUndefined(excluded(wanted(8001, "cli web")))
    assert.isUndefined(excluded(wanted(8000, undefined, "udp")))
    assert.isUndefined(excluded(wanted(8002)))
  })

  it("of a block excludes others from all of its ports, and its own host from none", () => {
    const claimed = state(held("a", block(8000, 8003)))
    assert.strictEqual(excluderOf(claimed, "b", wanted(8003, undefined, "udp"))?.host, "a")
    assert.isUndefined(excluderOf(claimed, "b", wanted(8004)))
    assert.isUndefined(excluderOf(claimed, "a", wanted(8003)))
  })

  it("that can't be read excludes everything in its cell, its own host included", () => {
    const strange = { ...held("a", port(8000)), value: '{"_tag":"Mesh"}' }
    assert.strictEqual(itemOf(strange)._tag, "Unreadable")
    assert.strictEqual(excluderOf(state(strange), "a", wanted(8063))?.host, "a")
    assert.isUndefined(freeBlock(cell, state(strange), 4, all))
  })

  it("is one that can be read only if its time is one that a date can have", () => {
    const since = (text: string) => ({
      value: `{"_tag":"Port","protocol":"tcp","port":8000,"owner":"cli","backend":"","sinceMillis":${text}}`
    })
    const tags = ["0", "8640000000000000", "8640000000000001", "-8640000000000001", "1e400"].map(
      (text) => itemOf(since(text))._tag
    )
    assert.deepStrictEqual(tags, ["Port", "Port", "Unreadable", "Unreadable", "Unreadable"])
  })

  it("can be read again, however odd its backend and however long its service", () => {
    const service = `${"k".repeat(128)} ${"p".repeat(255)}/${"n".repeat(64)}`
    const backend = `[fe80::1%é${"z".repeat(600)}]:80`
    const claimant = { owner: "k".repeat(128), backend, container: "é", service }
    const { name, value } = claimOf("a", portClaim({ protocol: "tcp", port: 8000 }, claimant, 0))
    assert.strictEqual(name, "tcp.8000.a")
    assert.deepStrictEqual(itemOf({ value }), {
      ...{ _tag: "Port", protocol: "tcp", port: 8000, owner: claimant.owner, sinceMillis: 0, service },
      backend: `[fe80::1%?${"z".repeat(502)}`
    })
  })

  it("says who holds it", () => {
    const text = (item: PortClaim | Block) => holderText(held("a", item))
    assert.deepStrictEqual(
      [port(8000), { ...port(8000), container: "web" }, port(8000, "watch shop/web"), block(8000, 8003)].map(
        text
      ),
      [
        "held by host a for 172.17.0.2:80, owner engine",
        "held by host a, container web",
        "held by host a, service shop/web",
        "held by host a for its ephemeral ports"
      ]
    )
  })
})

describe("a free block", () => {
  it("is the first aligned run of the range without any claim", () => {
    const claimed = state(
      held("a", port(8001)),
      held("b", block(8004, 8007)),
      held("b", port(8017, "cli web"))
    )
    const free = (size: number, range = all) => freeBlock(cell, claimed, size, range)?.first
    assert.strictEqual(free(4), 8008)
    assert.strictEqual(free(8), 8008)
    assert.strictEqual(free(16), 8032)
    assert.strictEqual(free(32), 8032)
    assert.isUndefined(free(64))
    assert.strictEqual(free(4, { first: 8010, last: 8063 }), 8012)
    assert.isUndefined(free(4, { first: 8061, last: 8063 }))
    assert.isUndefined(freeBlock(cellOf(0), state(), 64, { first: 0, last: 63 }))
  })

  it("grows with what the host uses, and is taken before the last one is full", () => {
    assert.deepStrictEqual([0, 1, 4, 5, 16, 33, 64, 5000].map(blockSizeFor), [4, 4, 4, 8, 16, 64, 64, 64])
    assert.deepStrictEqual([0, 1, 8, 64, 5000].map(lowWater), [2, 2, 2, 16, 32])
  })

  it("is looked for in every cell of the range, from one of them on", () => {
    assert.deepStrictEqual(cellsOf({ first: 100, last: 200 }, 4), ["0002", "0003", "0001"])
  })
})

/** What two hosts claim in turn, each as the rules allow it. */
const claims = fc.array(
  fc.record({
    host: fc.constantFrom("a", "b", "c"),
    item: fc.oneof(
      fc.record({
        at: fc.integer({ min: 8000, max: 8063 }),
        protocol: fc.constantFrom("tcp" as const, "udp" as const),
        service: fc.constantFrom(undefined, "cli web")
      }),
      fc.record({ size: fc.constantFrom(4, 8, 16) })
    )
  }),
  { maxLength: 40 }
)

it("gives no port to two hosts, whatever they claim in whatever order", () => {
  fc.assert(
    fc.property(claims, (steps) => {
      const made: Array<HeldClaim> = []
      for (const { host, item } of steps) {
        if ("size" in item) {
          const free = freeBlock(cell, { claims: made }, item.size, all)
          if (free !== undefined) made.push(held(host, free))
        } else if (
          excluderOf({ claims: made }, host, wanted(item.at, item.service, item.protocol)) === undefined
        )
          made.push(held(host, port(item.at, item.service, item.protocol)))
      }
      for (const protocol of ["tcp", "udp"])
        for (let at = 8000; at <= 8063; at++) {
          const there = made.filter((each) => {
            const item = itemOf(each)
            if (item._tag === "Block") return item.first <= at && at <= item.last
            return item._tag === "Port" && item.port === at && item.protocol === protocol
          })
          const services = there.map((each) => {
            const item = itemOf(each)
            return item._tag === "Port" ? item.service : undefined
          })
          const isShared = services.every((service) => service === "cli web")
          assert.isTrue(new Set(there.map(({ host }) => host)).size <= 1 || isShared, `${at}/${protocol}`)
        }
    })
  )
})

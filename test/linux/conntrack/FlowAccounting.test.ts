import { assert, describe, it } from "@effect/vitest"
import type { Flow } from "../../../adapters/linux/conntrack/ConntrackMessages.ts"
import { type FlowAccounting, makeAccounting } from "../../../adapters/linux/conntrack/FlowAccounting.ts"
import type { Redirected } from "../../../src/firewall/ByteCounter.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"

/** A flow from a client to 192.0.2.1:80, redirected to 10.0.0.2:8080. */
const flow = (id: number, bytesIn: number, bytesOut: number, destination = "192.0.2.1"): Flow => {
  const [source, to, backend] = ["10.1.0.2", destination, "10.0.0.2"].map(
    (text) => addressUnsafe(text).octets
  )
  const none = new Uint8Array()
  return {
    family: 2,
    status: 0x2a,
    isClosed: false,
    isReset: false,
    id,
    bytesIn,
    bytesOut,
    original: {
      protocol: 6,
      source: source ?? none,
      sourcePort: 5000,
      destination: to ?? none,
      destinationPort: 80
    },
    reply: {
      protocol: 6,
      source: backend ?? none,
      sourcePort: 8080,
      destination: source ?? none,
      destinationPort: 5000
    }
  }
}

const redirected = (host: string, backend = "10.0.0.2"): Redirected => ({
  protocol: "tcp",
  host: addressUnsafe(host),
  port: 80,
  backend: { address: addressUnsafe(backend), port: 8080 }
})
const any = redirected("0.0.0.0")

const dump = (accounting: FlowAccounting, ...flows: ReadonlyArray<Flow>) => {
  accounting.begin()
  for (const one of flows) accounting.seen(one)
  accounting.finish()
}
const sum = (accounting: FlowAccounting) => accounting.sums([any]).map((bytes) => [bytes.in, bytes.out])[0]

describe("FlowAccounting", () => {
  it("sums living and ended flows", () => {
    const accounting = makeAccounting()
    dump(accounting, flow(1, 10, 100), flow(2, 1, 1))
    assert.deepStrictEqual(sum(accounting), [11, 101])
    dump(accounting, flow(1, 20, 200), flow(2, 1, 1))
    assert.deepStrictEqual(sum(accounting), [21, 201])
    accounting.ended(flow(1, 25, 250))
    accounting.ended(flow(3, 5, 5))
    assert.deepStrictEqual(sum(accounting), [31, 256])
    dump(accounting, flow(2, 1, 1))
    assert.deepStrictEqual(sum(accounting), [31, 256])
  })

  it("keeps the traffic of a flow whose end was never reported", () => {
    const accounting = makeAccounting()
    dump(accounting, flow(1, 10, 100))
    dump(accounting)
    assert.deepStrictEqual(sum(accounting), [10, 100])
  })

  it("counts an ended flow once when its end comes during a dump, before or after the dump reads the flow", () => {
    for (const order of ["before", "after"]) {
      const accounting = makeAccounting()
      dump(accounting, flow(1, 10, 100))
      accounting.begin()
      if (order === "after") accounting.seen(flow(1, 15, 150))
      accounting.ended(flow(1, 20, 200))
      if (order === "before") accounting.seen(flow(1, 15, 150))
      accounting.finish()
      assert.deepStrictEqual(sum(accounting), [20, 200], order)
      dump(accounting)
      assert.deepStrictEqual(sum(accounting), [20, 200], order)
    }
  })

  it("counts a flow once that a dump has twice", () => {
    const accounting = makeAccounting()
    dump(accounting, flow(1, 10, 100), flow(1, 11, 110))
    assert.deepStrictEqual(sum(accounting), [11, 110])
  })

  it("separates addresses and backends, and attributes a flow to the specific address before the unspecified one", () => {
    const accounting = makeAccounting()
    dump(accounting, flow(1, 1, 1), flow(2, 10, 10, "192.0.2.9"))
    const one = redirected("192.0.2.9")
    assert.deepStrictEqual(
      accounting.sums([any, one, redirected("0.0.0.0", "10.0.0.3")]).map((bytes) => bytes.in),
      [1, 10, 0]
    )
    assert.deepStrictEqual(accounting.sums([any])[0]?.in, 11)
  })

  it("starts at zero after a reset, also for flows that go on", () => {
    const accounting = makeAccounting()
    dump(accounting, flow(1, 10, 100))
    accounting.forget([any])
    assert.deepStrictEqual(sum(accounting), [0, 0])
    dump(accounting, flow(1, 12, 120))
    assert.deepStrictEqual(sum(accounting), [2, 20])
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Conntrack, type FlowFrontend, MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

const flow = (port: number): FlowFrontend => ({
  protocol: "udp",
  host: addressUnsafe("0.0.0.0"),
  port,
  backend: undefined,
  allow: undefined
})

describe("Conntrack in memory", () => {
  it.effect("tells what was flushed last, in order, and keeps no endless record of it", () =>
    Effect.gen(function* () {
      const conntrack = yield* Conntrack
      const control = yield* MemoryConntrack
      for (let port = 1; port <= 50_000; port++) yield* conntrack.flush([flow(port)])
      const flushed = control.flushed()
      assert.isBelow(flushed.length, 20_001)
      assert.deepStrictEqual(
        flushed.slice(-10_000),
        Array.from({ length: 10_000 }, (_, index) => `0.0.0.0:${40_001 + index}/udp`)
      )
    }).pipe(Effect.provide(Conntrack.layerMemory))
  )
})

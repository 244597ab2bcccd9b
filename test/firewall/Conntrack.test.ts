import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { IpNetwork } from "effect/net"
import {
  Conntrack,
  type FlowFrontend,
  flowsOfNarrowed,
  flowText,
  MemoryConntrack
} from "../../src/firewall/Conntrack.ts"
import type { Rule } from "../../src/firewall/Firewall.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { guard, limit, redirect } from "./firewallConformance.ts"

const flow = (port: number): FlowFrontend => ({
  protocol: "udp",
  host: addressUnsafe("0.0.0.0"),
  port,
  backend: undefined,
  allow: undefined,
  narrowed: false
})

describe("flowsOfNarrowed", () => {
  const networks = (...texts: ReadonlyArray<string>) => texts.map(IpNetwork.fromStringUnsafe)
  const flows = (rule: Rule, allow: FlowFrontend["allow"]) => flowsOfNarrowed([rule], allow).map(flowText)
  const narrowed = "0.0.0.0:80/tcp unless to 10.0.0.2:80 from 10.0.0.0/8 and narrowed"

  it("is the frontend of a redirection that admits fewer sources than before", () => {
    assert.deepStrictEqual(flows(redirect("tcp 0.0.0.0 80", "10.0.0.2 80"), networks("10.0.0.0/8")), [
      narrowed
    ])
    for (const before of [["0.0.0.0/0"], ["10.0.0.0/9", "11.0.0.0/8"], ["10.0.0.0/7"], ["::/0"]])
      assert.deepStrictEqual(
        flows(redirect("tcp 0.0.0.0 80", "10.0.0.2 80", ...before), networks("10.0.0.0/8")),
        [narrowed]
      )
  })

  it("is nothing where the rule admits as much, or more, or nothing was redirected", () => {
    const some = redirect("tcp 0.0.0.0 80", "10.0.0.2 80", "10.1.0.0/16", "192.0.2.1/32")
    for (const allow of [undefined, networks("192.0.2.0/24", "10.0.0.0/8"), some.allow])
      assert.deepStrictEqual(flows(some, allow), [])
    assert.deepStrictEqual(flows(redirect("tcp 0.0.0.0 80", "10.0.0.2 80"), undefined), [])
    assert.deepStrictEqual(flows(limit("tcp 0.0.0.0 80", "10.0.0.0/8"), []), [])
    assert.deepStrictEqual(flows(guard("tcp 127.0.0.1 80"), []), [])
  })
})

describe("Conntrack in memory", () => {
  it.effect("returns the latest flushes, in order, and keeps a bounded number of them", () =>
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

import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { Firewall } from "../../../src/firewall/Firewall.ts"
import { redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace } from "../../lab/ThreadNamespace.ts"

import { add, nft, older, standing, firewallTest as test } from "./firewallTest.ts"

describeInNamespace("a table that others may change", () => {
  for (const [title, damage] of [
    ["removes an element", "delete element inet portmapper any4 { tcp . 80 }"],
    ["empties a map", "flush map inet portmapper any4"],
    ["adds an element", "add element inet portmapper any4 { tcp . 81 : 10.0.0.3 . 80 }"],
    ["replaces a rule", "replace rule inet portmapper published4 handle HANDLE ip daddr 10.0.0.9 counter"]
  ] as const)
    test(
      `notices that another process ${title}, and puts back what was there`,
      Effect.gen(function* () {
        const { check, replace } = yield* Firewall
        const rules = [redirect("tcp 0.0.0.0 80", "10.0.0.2 80"), redirect("udp 0.0.0.0 53", "10.0.0.2 53")]
        const [, handle = ""] =
          [...nft("-a list chain inet portmapper published4").matchAll(/# handle (\d+)$/gm)].at(-1) ?? []
        yield* add(...rules)
        yield* check
        const state = Effect.map(standing, (found) => [found, nft("list chain inet portmapper published4")])
        const before = yield* state
        nft(damage.replace("HANDLE", handle))
        assert.notDeepEqual(yield* state, before)
        for (const _ of [1, 2]) assert.strictEqual((yield* Effect.flip(check)).reason, "Changed")
        yield* replace(rules)
        yield* check
        assert.deepStrictEqual(yield* state, before)
        nft("add table inet another")
        nft("delete table inet another")
        yield* check
      }),
      older
    )

  test(
    "notices that another process emptied its chains or changed its definition, and repairs both",
    Effect.gen(function* () {
      const { check, replace } = yield* Firewall
      const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
      for (const damage of [
        "flush table inet portmapper",
        "flush chain inet portmapper published4",
        "flush ruleset"
      ]) {
        yield* replace([rule])
        yield* check
        nft(damage)
        const error = yield* Effect.flip(check)
        assert.deepStrictEqual(
          [error.reason, error.message],
          ["Gone", "checking nftables table inet portmapper failed: the table is gone"]
        )
      }
      yield* replace([rule])
      nft("add table inet others")
      yield* check
      nft("delete table inet others")
      yield* check
    }),
    older
  )
})

import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { layer } from "../../../adapters/linux/nft/NftFirewall.ts"
import { makeTable } from "../../../adapters/linux/nft/Ruleset.ts"
import { Firewall } from "../../../src/firewall/Firewall.ts"
import { member, redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace, run } from "../../lab/ThreadNamespace.ts"

import { add, nft, remove } from "./firewallTest.ts"

describeInNamespace("the definition of our table", () => {
  it.live("is the ruleset that nft loads, word for word", () =>
    Effect.gen(function* () {
      const definition = makeTable({ name: "portmapper", acceptMark: undefined })
      run("nft -f -", definition.text("plain"))
      const linesOf = (name: string) =>
        nft(`list table inet ${name}`)
          .split("\n")
          .filter((line) => line !== "" && !/^table inet |^\tcomment |^\tflags |# progname/.test(line))
      const plain = linesOf("plain")
      assert.isAbove(plain.length, 50)
      yield* Effect.provide(
        Effect.gen(function* () {
          yield* (yield* Firewall).replace([])
          assert.deepStrictEqual(
            linesOf("portmapper"),
            plain.filter((line) => !line.includes("jump services")),
            "no rule more for any packet while there is no service"
          )
          const service = member(redirect("tcp 0.0.0.0 80", "10.0.0.2 80"), "0-63 of 64")
          const { remove: removeTable, replace } = yield* Firewall
          for (const put of [add(service), Effect.andThen(removeTable, replace([service]))]) {
            yield* put
            yield* remove(service)
            assert.deepStrictEqual(linesOf("portmapper"), plain)
          }
          yield* (yield* Firewall).check
        }),
        layer()
      )
      nft("delete table inet plain")
      assert.strictEqual(
        nft("list tables"),
        "table inet portmapper\n",
        "no draft, and no lock once it is released"
      )
    })
  )
})

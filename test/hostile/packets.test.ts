import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Attacks from "./packets.ts"

describeLab("a hostile neighbour's packets", [], () => {
  const holds = (title: string, attack: Attacks.Attack) =>
    it.live(title, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* attack, [])
      })
    )

  holds("do not reach the plugin's own port on a loopback address", Attacks.knockAtOwnPort)

  holds("to broadcast and multicast addresses reach no container", Attacks.shoutAtRelay)

  holds("with marks like ours are not taken for ours", Attacks.borrowMark)

  holds("of flows that a narrowed policy no longer admits go nowhere", Attacks.outliveNarrowing)
})

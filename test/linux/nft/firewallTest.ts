import { it } from "@effect/vitest"
import { Effect } from "effect"
import { libc } from "../../../adapters/linux/Libc.ts"
import { layer } from "../../../adapters/linux/nft/NftFirewall.ts"
import { Firewall, type Rule, ruleText } from "../../../src/firewall/Firewall.ts"
import { run } from "../../lab/ThreadNamespace.ts"
import { olderKernel } from "../../support/olderKernel.ts"

export const nft = (command: string) => run(`nft ${command}`)

/** Linux before 6.9: our table has no owner there, so that other processes can change it. */
export const older = () => olderKernel(libc())

/** A test on a table without rules, in a namespace of its own. */
export const firewallTest = <E>(title: string, body: Effect.Effect<void, E, Firewall>, load = libc) =>
  it.live(title, () =>
    Effect.provide(
      Effect.andThen(
        Firewall.use(({ replace }) => replace([])),
        body
      ),
      layer({}, load)
    )
  )
/** The rules that the table has. */
export const standing = Firewall.use(({ read }) =>
  Effect.map(read, ({ rules }) => rules.map(ruleText).sort())
)
export const add = (...rules: ReadonlyArray<Rule>) =>
  Firewall.use(({ apply }) => apply({ add: rules, remove: [] }))
export const remove = (...rules: ReadonlyArray<Rule>) =>
  Firewall.use(({ apply }) => apply({ add: [], remove: rules }))

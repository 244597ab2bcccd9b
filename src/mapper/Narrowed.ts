/** What a change of policy ends: flows that the kernel led, from sources that the policy no longer lets in. */
import { type FlowFrontend, flowsOfNarrowed } from "../firewall/Conntrack.ts"
import type { Live } from "./Mapping.ts"

type Served = Pick<Live, "rules" | "route">

export const narrowedFlows = (
  changes: ReadonlyArray<{ readonly before: Served; readonly after: Served }>
): ReadonlyArray<FlowFrontend> =>
  changes.flatMap(({ before, after }) => flowsOfNarrowed(before.rules, allowOf(after)))

const allowOf = ({ rules, route }: Served): FlowFrontend["allow"] => {
  const [allow = route?.allow] = rules.flatMap((rule) => (rule._tag === "Guard" ? [] : [rule.allow]))
  return allow
}

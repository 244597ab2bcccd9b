/** Clients that wait for a backend: how long, and whether one could wake a container. Pure. */
import { Duration } from "effect"
import type { Group } from "../../protocol/PortBinding.ts"
import { type Issue, labelIssue } from "../../protocol/RequestError.ts"
import { isRelayed, type Route } from "../../relay/Relay.ts"
import type { Mode, Policy } from "../model/Labels.ts"

/** How long a client waits for the container that it wakes, without a label. */
export const defaultWakeTimeout = Duration.seconds(30)

/** How long clients wait; no property where they don't. */
export const waitingFor = (policy: Policy): Pick<Route, "waitHealthy"> => {
  const waitHealthy = waitOf(policy)
  return waitHealthy === undefined ? {} : { waitHealthy }
}

/** How long a client waits for a backend that takes no connections now; `undefined`: it is refused at once. */
const waitOf = ({ idle, wakeTimeout, waitHealthy }: Policy): Duration.Duration | undefined => {
  if (idle === "failed") return undefined
  if (idle !== "asleep" && idle !== "waking") return waitHealthy
  return Duration.max(wakeTimeout ?? defaultWakeTimeout, waitHealthy ?? Duration.zero)
}

/** Why no client could wake the container of a group that asks for it: only the relay notices one. */
export const sleepIssues = (
  { entries, labels }: Group,
  mode: Mode,
  { wake, sleep }: Policy
): ReadonlyArray<Issue> => {
  const issue = (label: string, rule: string) => [labelIssue(label, labels.get(label) ?? "", rule)]
  if (!wake)
    return sleep === undefined
      ? []
      : issue("portmapper.sleep", "beside portmapper.wake=on, by which a client starts the container again")
  const refused = (rule: string) => issue("portmapper.wake", rule)
  if (mode !== "nat" && mode !== "proxy") return refused(`beside mode nat or proxy (not ${mode})`)
  return entries.every(({ protocol }) => isRelayed(protocol))
    ? []
    : refused("beside ports of TCP and UDP alone")
}

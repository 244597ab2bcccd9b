/** Clients that wait for a backend: how long, and whether one could wake a container. Pure. */
import { Duration } from "effect"
import { containerLabel, publishLabel, toLabel } from "../../protocol/FollowLabels.ts"
import type { Group, Labels } from "../../protocol/PortBinding.ts"
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

/** Why the labels could wake no container, whatever the group and the host. */
export const wakeIssues = (labels: Labels, { wake }: Policy): ReadonlyArray<Issue> => {
  if (wake)
    return isFollowed(labels)
      ? []
      : [
          labelIssue(
            wakeLabel,
            labels.get(wakeLabel) ?? "",
            "off, or not given, where an address is published: serve --watch starts only a container that it publishes itself, by its labels or for portmapper map --to CONTAINER"
          )
        ]
  return asideOfWake.flatMap((label) =>
    labels.has(label)
      ? [
          labelIssue(
            label,
            labels.get(label) ?? "",
            `beside ${wakeLabel}=on, by which a client starts the container`
          )
        ]
      : []
  )
}

/** Why no client could wake the container of this group: only the relay notices one. */
export const sleepIssues = (
  { entries, labels }: Group,
  mode: Mode,
  { wake }: Policy
): ReadonlyArray<Issue> => {
  if (!wake) return []
  const refused = (rule: string) => [labelIssue(wakeLabel, labels.get(wakeLabel) ?? "", rule)]
  if (mode !== "nat" && mode !== "proxy") return refused(`beside mode nat or proxy (not ${mode})`)
  return entries.every(({ protocol }) => isRelayed(protocol))
    ? []
    : refused("beside ports of TCP and UDP alone")
}

const wakeLabel = "portmapper.wake"
const asideOfWake = ["portmapper.wake-timeout", "portmapper.wake-count", "portmapper.sleep"]

/** An Engine passes the labels by which `watch` publishes other ports of the container. */
const isFollowed = (labels: Labels): boolean =>
  labels.has(containerLabel) || (labels.has(publishLabel) && !labels.has(toLabel))

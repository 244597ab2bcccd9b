/** Requests that can't be published until something changes: as logged and as listed. Pure. */
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { containerLabel, errorLabel, publishLabel, toLabel } from "../../src/protocol/FollowLabels.ts"
import { meansBackend, type ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"
import { serviceName, shareLabel } from "../../src/protocol/ServiceName.ts"
import type { DesiredGroup, Problem } from "./Desired.ts"
import type { Granted } from "./Difference.ts"
import { keyOf } from "./Observed.ts"
import type { Sleepers } from "./Sleepers.ts"

export interface StandingProblem {
  readonly problem: Problem
  readonly sinceMillis: number
}

/** Problems that existed before keep their time. */
export const standingFrom = (
  now: ReadonlyArray<Problem>,
  before: ReadonlyMap<string, StandingProblem>,
  nowMillis: number
): Map<string, StandingProblem> =>
  new Map(
    now.map((problem) => {
      const { owner, name, publish = "", desired } = problem
      const key = `${owner} ${name} ${publish} ${desired?.key ?? ""}`
      return [key, { problem, sinceMillis: before.get(key)?.sinceMillis ?? nowMillis }]
    })
  )

/** The first problem of a container or an interface's ports, and how many more it has. */
export const problemsText = (problems: ReadonlyArray<Problem>): string => {
  const [first, ...rest] = problems
  if (first === undefined) return ""
  const more = rest.length === 0 ? "" : ` (and ${rest.length} more)`
  const what = first.publish === undefined ? "" : `${first.publish}: `
  return `${first.name}: ${first.waiting ? "waiting: " : "not published: "}${what}${first.detail}${more}`
}

/** The port that a group requests or had; 0 if any will do. */
const portOf = ({ key, group: { ports } }: DesiredGroup, granted: Granted): number =>
  ports._tag === "Exact" ? ports.port : (granted.get(key) ?? (ports._tag === "Range" ? ports.first : 0))

/** Whether a released binding has the frontend that could not be published; of a service, also the backend. */
export const concerns = (
  { desired }: Problem,
  { protocol, host, port, backend }: ReleasedBinding,
  granted: Granted
): boolean =>
  desired !== undefined &&
  port === portOf(desired, granted) &&
  desired.group.entries.some(
    (entry) =>
      entry.protocol === protocol &&
      entry.host.key === host.key &&
      (!desired.group.labels.has(shareLabel) || meansBackend(backend, entry.backend))
  )

/** With the reason why a container does not wake, or is not stopped. */
export const withReasons = (
  listed: ReadonlyArray<ListedMapping>,
  { all }: Sleepers
): ReadonlyArray<ListedMapping> => {
  const reasons = new Map(
    all.flatMap(({ why, ports }) =>
      why === undefined ? [] : [...ports.keys()].map((key) => [key, why] as const)
    )
  )
  if (reasons.size === 0) return listed
  return listed.map((mapping) => {
    const reason = mapping.reason ?? reasons.get(keyOf(mapping) ?? "")
    return reason === undefined ? mapping : { ...mapping, reason }
  })
}

/** Listed as conflicted, with the reason among its labels. */
export const listedProblem = ({ problem, sinceMillis }: StandingProblem, granted: Granted): ListedMapping => {
  const { name, owner, publish, detail, desired } = problem
  const entry = desired?.group.entries[0]
  const service = desired?.group.labels.get(shareLabel)
  const isOfContainer = desired?.group.labels.has(toLabel) !== true
  return {
    protocol: protocolNumber[entry?.protocol ?? "tcp"],
    frontendIp: entry?.requestedAddress ?? "",
    frontendPort: desired === undefined ? 0 : portOf(desired, granted),
    backendIp: entry?.backend.address.text ?? "",
    backendPort: entry?.backend.port ?? 0,
    mode: desired?.group.labels.get("portmapper.mode") ?? "",
    owner,
    state: "conflicted",
    sinceMillis,
    container: isOfContainer ? name : undefined,
    reason: detail,
    service: service && serviceName(service),
    labels: new Map([
      [isOfContainer ? containerLabel : toLabel, name],
      ...(publish === undefined ? [] : [[publishLabel, publish] as const]),
      [errorLabel, detail]
    ]),
    connections: undefined,
    bytesIn: undefined,
    bytesOut: undefined
  }
}

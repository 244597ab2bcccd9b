/**
 * Services in the model: mappings that share a frontend by the label `portmapper.share` (docs/SERVICES.md). Which
 * slots a backend has is not predicted: what the host holds is checked, and compared with what it held before.
 */
import type { Capabilities } from "../mapper/plan/Plan.ts"
import { parseSlots } from "../protocol/Slots.ts"
import type { Frontend } from "./ModelAddress.ts"
import type { Model, ModelMapping } from "./ModelState.ts"
import type { HostHoldings } from "./Target.ts"

type Labels = Readonly<Record<string, string>>

/** What a call requests of the services: `service` is `undefined` where it shares no port. */
export interface Claim {
  readonly service: string | undefined
  readonly mode: string
  readonly labels: Labels
}

/** The service that these labels name: its name, and the kind of caller that may join, if not all of them. */
export const serviceOf = (labels: Labels, owner: string): string | undefined => {
  const share = labels["portmapper.share"]
  return share === undefined || share.startsWith("/") ? share : `${owner.split(":")[0]} ${share}`
}

/** Whether a port can be shared as these labels request; also where they request nothing of the kind. */
export const mayShare = (labels: Labels, mode: string, exact: boolean, { shares = [] }: Capabilities) => {
  const share = labels["portmapper.share"]
  if (share === undefined) return labels["portmapper.balance"] === undefined
  const named = !share.startsWith("/") || shares.includes(share.slice(1))
  return exact && named && (mode === "nat" || mode === "proxy")
}

const isMember = ({ share }: ModelMapping, service: string | undefined): boolean =>
  service !== undefined && share === service

/** Whether both are backends of one service, maybe on different addresses. */
export const areFellows = (one: ModelMapping, other: ModelMapping): boolean => isMember(one, other.share)

/**
 * Whether a mapping at a conflicting frontend is in the way of a claim. A backend of the same service is not, where
 * the service is on the claim's very address; nor is one in conflict, if it agrees on the policy.
 */
export const isInTheWay = (model: Model, mapping: ModelMapping, at: Frontend, claim: Claim): boolean => {
  if (!isMember(mapping, claim.service)) return true
  if (mapping.standing === "conflicted") return !agrees(mapping, claim)
  return !model.mappings.some(
    (other) =>
      areFellows(other, mapping) &&
      other.proto === at.proto &&
      other.key === at.key &&
      other.port === mapping.port
  )
}

/** Whether a mapping in conflict loses its place because a served backend of its service gets another policy. */
export const isOutvoted = (mapping: ModelMapping, claim: Claim): boolean =>
  mapping.standing === "conflicted" && isMember(mapping, claim.service) && !agrees(mapping, claim)

/** Whether the served backends of the claim's service at this frontend, the claim's own mapping aside, differ from it. */
export const differsFromOthers = (
  model: Model,
  at: Frontend,
  port: number | undefined,
  own: ModelMapping | undefined,
  claim: Claim
): boolean =>
  model.mappings.some(
    (mapping) =>
      mapping !== own &&
      isMember(mapping, claim.service) &&
      mapping.standing !== "conflicted" &&
      mapping.proto === at.proto &&
      mapping.key === at.key &&
      mapping.port === port &&
      !agrees(mapping, claim)
  )

const agrees = (mapping: ModelMapping, { mode, labels }: Claim): boolean => {
  const valuesOf = (these: Labels) =>
    commonLabels.map(([name, otherwise]) => these[`portmapper.${name}`] ?? otherwise).join("\n")
  return mapping.mode === mode && valuesOf(labelsOf(mapping)) === valuesOf(labels)
}

/** What all backends must have in common, each with the value that no label means. */
const commonLabels = [
  ...[["mode", "auto"] as const, ["balance", "random"] as const],
  ...[["wake", "off"] as const, ["wake-timeout", "30s"] as const, ["wake-count", "1"] as const],
  ...[
    ...["allow", "proxy-protocol", "udp-idle", "connections", "rate", "rate-per-source"],
    ...["wait-healthy", "sleep", "scope"]
  ].map((name) => [name, ""] as const)
]

export const labelsOf = ({ policy }: ModelMapping): Labels =>
  Object.fromEntries(JSON.parse(policy) as ReadonlyArray<[string, string]>)

/** ` by random` behind what leads to a backend of a service. */
export const balanceText = (mapping: ModelMapping): string =>
  mapping.share === undefined ? "" : ` by ${labelsOf(mapping)["portmapper.balance"] ?? "random"}`

const slotsPattern = / slots (\S*) of (\d+)(?= by )/

/** A line of what a host holds, without the slots, but says where a backend has none. */
export const withoutSlots = (line: string): string =>
  line.replace(slotsPattern, (_, slots: string) => (slots === "" ? noSlots : ""))

export const noSlots = " without slots"

/** The line of a service's backend, without what is repaired later where the relay or the record refuses it. */
export const withoutLag = (line: string): string =>
  line.includes(" by ") ? line.replace(noSlots, "").replace(/ admits \w+/, "") : line

/** The backend of each slot, by frontend. */
export type Spread = ReadonlyMap<string, ReadonlyArray<string>>

/** What leads to a service's backends, and what is wrong with it. */
export interface Observed {
  readonly spread: Spread
  readonly problem: string | undefined
}

/**
 * Checks the slots: each leads to one backend, each backend has as many as the others, a slot moves only from a
 * backend that left or to one that joined (`before`), and the kernel, the relay and the record agree. `failed`: a
 * change failed since, so that the relay and the record may lag behind until they are repaired, and an undone
 * change may have moved slots.
 */
export const observe = (held: Partial<HostHoldings>, before: Spread, failed: boolean): Observed => {
  const [rules, routes] = [slotsOf(held.rules ?? []), slotsOf(held.routes ?? [])]
  const spread = new Map([...(failed ? [] : spreadOf(routes)), ...spreadOf(rules)])
  const recorded = new Map(
    slotsOf(held.stored ?? []).map((each) => [`${each.frontend} ${each.backend}`, each])
  )
  const laggard = [...rules, ...routes].find(({ frontend, backend, slots, size }) => {
    const other = recorded.get(`${frontend} ${backend}`)
    return other !== undefined && (other.size !== size || other.slots.join() !== slots.join())
  })
  const problem =
    uneven(rules) ??
    (failed
      ? undefined
      : (uneven(routes) ??
        (laggard === undefined
          ? undefined
          : `the record does not have the slots of ${laggard.frontend} -> ${laggard.backend}`) ??
        disagreement(spreadOf(rules), spreadOf(routes)) ??
        moved(before, spread)))
  return { spread, problem }
}

interface Slots {
  readonly frontend: string
  readonly backend: string
  readonly size: number
  readonly slots: ReadonlyArray<number>
}

const slotsOf = (lines: ReadonlyArray<string>): ReadonlyArray<Slots> =>
  lines.flatMap((line) => {
    const [, text = "", size] = slotsPattern.exec(line) ?? []
    const [, frontend = "", backend = ""] = /^(?:Redirect )?(\S+) -> (\S+)/.exec(line) ?? []
    return size === undefined
      ? []
      : [{ frontend, backend, size: Number(size), slots: parseSlots(text) ?? [] }]
  })

const byFrontend = (all: ReadonlyArray<Slots>): Map<string, ReadonlyArray<Slots>> => {
  const found = new Map<string, ReadonlyArray<Slots>>()
  for (const each of all) found.set(each.frontend, [...(found.get(each.frontend) ?? []), each])
  return found
}

const spreadOf = (all: ReadonlyArray<Slots>): Map<string, ReadonlyArray<string>> => {
  const spread = new Map<string, ReadonlyArray<string>>()
  for (const [frontend, members] of byFrontend(all)) {
    const backends: Array<string> = []
    for (const { backend, slots } of members) for (const slot of slots) backends[slot] = backend
    spread.set(frontend, backends)
  }
  return spread
}

const uneven = (all: ReadonlyArray<Slots>): string | undefined => {
  for (const [frontend, members] of byFrontend(all.filter(({ slots }) => slots.length > 0))) {
    const size = members[0]?.size ?? 0
    const taken = members.flatMap(({ slots }) => slots)
    const counts = members.map(({ slots }) => slots.length)
    if (
      members.some((each) => each.size !== size) ||
      taken.length !== size ||
      new Set(taken).size !== size ||
      taken.some((slot) => slot >= size) ||
      Math.max(...counts) - Math.min(...counts) > 1
    )
      return `${frontend}: its backends have ${counts.join(", ")} slots, ${new Set(taken).size} different ones of ${size}`
  }
  return undefined
}

const disagreement = (rules: Spread, routes: Spread): string | undefined => {
  for (const [frontend, backends] of rules) {
    const relayed = routes.get(frontend)
    if (relayed !== undefined && relayed.join() !== backends.join())
      return `${frontend}: the relay has other slots than the kernel`
  }
  return undefined
}

const moved = (before: Spread, after: Spread): string | undefined => {
  for (const [frontend, backends] of after) {
    const others = before.get(frontend)
    if (others === undefined) continue
    const [left, joined] = [new Set(backends), new Set(others)]
    for (const [slot, backend] of backends.entries()) {
      const from = others[Math.floor((slot * others.length) / backends.length)] ?? ""
      if (from !== backend && left.has(from) && joined.has(backend))
        return `${frontend}: slot ${slot} moved from ${from} to ${backend}, though both were and are its backends`
    }
  }
  return undefined
}

/**
 * Services: a frontend that leads to several backends, each by a mapping of its own. Who may join, and who has which
 * slots. Pure.
 */
import { Schema } from "effect"
import type { Hold } from "../../ports/PortAllocator.ts"
import { frontendText, type Labels, type PublishedPort } from "../../protocol/PortBinding.ts"
import { serviceName } from "../../protocol/ServiceName.ts"
import { maxMembers, type Size, sizeFor, slotsText, spread, widened } from "../../protocol/Slots.ts"
import { type Mode, type Policy, sharedPolicy } from "../model/Labels.ts"
import {
  frontendKey,
  isConflicted,
  type Mapping,
  type MappingEntry,
  type Mappings,
  mappingKey,
  mappingText,
  type Resources,
  type Share,
  takesTraffic
} from "../model/Mapping.ts"
import { admissionBeside } from "./Plan.ts"

type State = Pick<Mappings["Service"], "colliding">

/** The new backend of a service differs from the others in what all of them must have in common. */
export class ServiceRefused extends Schema.TaggedError<ServiceRefused>()("ServiceRefused", {
  frontend: Schema.String,
  service: Schema.String,
  rule: Schema.String
}) {
  override get message(): string {
    return `bind for ${this.frontend} failed: a backend of service ${this.service} needs ${this.rule}`
  }
}

/**
 * The service that a caller's label names: `/web` is the whole host's, any other name belongs to the callers of one
 * kind, so that none joins the service of another.
 */
export const serviceOf = ({ share }: Policy, owner: string): string | undefined => {
  if (share === undefined || share.startsWith("/")) return share
  return `${owner.split(":", 1)[0]} ${share}`
}

/** The frontend, and on a shared port the backend. */
export const memberText = (mapping: Mapping): string =>
  mapping.share === undefined ? frontendText(mapping) : mappingText(mapping)

/** The backends of the frontend's service that are served, in the order in which they joined. */
const membersOf = (
  state: State,
  { protocol, host, port }: PublishedPort,
  service: string
): ReadonlyArray<MappingEntry> =>
  state
    .colliding(protocol, host, port)
    .filter(
      (entry) =>
        isMember(entry, service) &&
        entry.mapping.host.key === host.key &&
        !isConflicted(entry) &&
        entry.status._tag !== "Gone"
    )

/** Whether an entry is a backend of this service. */
export const isMember = ({ mapping: { share } }: MappingEntry, service: string | undefined): boolean =>
  share !== undefined && share.service === service

/** The backends of whatever service a frontend has. */
export const backendsAt = (
  state: State,
  { protocol, host, port }: PublishedPort
): ReadonlyArray<MappingEntry> =>
  state
    .colliding(protocol, host, port)
    .filter(({ mapping }) => mapping.share !== undefined && mapping.host.key === host.key)

/** An entry that gets other slots, or the same ones. */
export interface Reshare {
  readonly entry: MappingEntry
  readonly share: Share
}

export interface Joined {
  /** The newcomer's part. */
  readonly share: Share
  /** The members whose slots change. */
  readonly others: ReadonlyArray<Reshare>
}

/** A mapping that is to be a backend of a service. */
export interface Candidate {
  readonly frontend: PublishedPort
  readonly service: string
  readonly mode: Mode
  readonly labels: Labels
  readonly policy: Policy
  /** Its entry, if it is one already. */
  readonly own: MappingEntry | undefined
  readonly drained: Mapping["drained"]
  /** Its part before this call, also if it was in conflict. */
  readonly before: Share | undefined
}

/** Whether both can be served as backends of one service, which has one policy. */
export const areFellows = (one: Mapping, other: Mapping): boolean =>
  one.share !== undefined &&
  one.share.service === other.share?.service &&
  mappingKey(one) !== mappingKey(other) &&
  differing(other, one.mode, one.labels) === undefined

/**
 * Adds a backend to its service, or one that is there anew, since it takes traffic again or no longer. It gets back
 * the slots that it had before, as far as an even spread allows.
 */
export const join = (state: State, candidate: Candidate): Joined => {
  const { frontend, service, policy, labels, own, drained, before } = candidate
  const members = membersOf(state, frontend, service).filter((entry) => entry !== own)
  const { size, slots } = before ?? { size: 64, slots: [] }
  const alone: Share = { service, balance: policy.balance ?? "random", size, slots }
  const takes = takesTraffic({ labels, drained })
  const shares = spreadOver([...partsOf(members), { share: alone, takes }])
  return { share: shares.at(-1) ?? alone, others: changed(members, shares) }
}

/** The parts that change in the services of these entries, once they have become these mappings. */
export const sharesAfter = (
  state: State,
  mappings: ReadonlyMap<MappingEntry, Mapping>
): ReadonlyMap<MappingEntry, Share> =>
  new Map(
    servicesOf(state, [...mappings.keys()])
      .flatMap((members) => changed(members, spreadOver(partsOf(members, mappings))))
      .map(({ entry, share }) => [entry, share])
  )

/** The holds of a service's other backends, whatever address of the port they are on. */
export const holdsOfService = (state: State, { frontend, service }: Candidate): ReadonlyArray<Hold> =>
  state
    .colliding(frontend.protocol, frontend.host, frontend.port)
    .flatMap((entry) => (isMember(entry, service) ? (entry.resources.hold ?? []) : []))

/** What services have once these entries have left. */
export const without = (state: State, left: ReadonlySet<MappingEntry>): State =>
  left.size === 0
    ? state
    : {
        colliding: (protocol, host, port) =>
          state.colliding(protocol, host, port).filter((entry) => !left.has(entry))
      }

/** The members of the services of these entries, by service and frontend. */
export const servicesOf = (
  state: State,
  entries: ReadonlyArray<MappingEntry>
): ReadonlyArray<ReadonlyArray<MappingEntry>> => {
  const services = new Map<string, ReadonlyArray<MappingEntry>>()
  for (const { mapping } of entries) {
    if (mapping.share === undefined) continue
    const { protocol, host, port, share } = mapping
    const key = `${frontendKey(protocol, host, port)} ${share.service}`
    if (!services.has(key)) services.set(key, membersOf(state, mapping, share.service))
  }
  return [...services.values()]
}

/** Spreads all slots of each service evenly over these members. Returns those whose slots change. */
export const respread = (services: ReadonlyArray<ReadonlyArray<MappingEntry>>): ReadonlyArray<Reshare> =>
  services.flatMap((members) => changed(members, spreadOver(partsOf(members))))

/** A member's part before slots are spread, and whether it is to have any. */
interface MemberPart {
  readonly share: Share
  readonly takes: boolean
}

/** `instead`: what some of these mappings become. */
const partsOf = (
  members: ReadonlyArray<MappingEntry>,
  instead?: ReadonlyMap<MappingEntry, Mapping>
): ReadonlyArray<MemberPart> =>
  members.flatMap((entry) => {
    const mapping = instead?.get(entry) ?? entry.mapping
    return mapping.share === undefined ? [] : [{ share: mapping.share, takes: takesTraffic(mapping) }]
  })

const changed = (
  members: ReadonlyArray<MappingEntry>,
  shares: ReadonlyArray<Share>
): ReadonlyArray<Reshare> =>
  members.flatMap((entry, index) => {
    const share = shares[index]
    return share === undefined || share === entry.mapping.share ? [] : [{ entry, share }]
  })

/** Spreads all slots over the members that take traffic; a share that stays is the same object. */
const spreadOver = (parts: ReadonlyArray<MemberPart>): ReadonlyArray<Share> => {
  const widest: Size = parts.some(({ share }) => share.size === 1024) ? 1024 : 64
  const size = sizeFor(parts.length, widest)
  const taking = parts.filter(({ takes }) => takes)
  const slots = spread(
    size,
    taking.map(({ share }) => widened(share.slots, share.size, size))
  )
  const idle = taking.length === 0 ? true : undefined
  let next = 0
  return parts.map(({ share, takes }) => {
    const own = (takes ? slots[next++] : undefined) ?? []
    const stays = share.size === size && share.idle === idle && slotsText(own) === slotsText(share.slots)
    if (stays) return share
    const { idle: _, ...rest } = share
    return { ...rest, size, slots: own, ...(idle === undefined ? {} : { idle }) }
  })
}

/** Why it can't be a backend of its service; `undefined` if it can. */
export const refusalOf = (state: State, candidate: Candidate): ServiceRefused | undefined => {
  const { frontend, service, own } = candidate
  const others = membersOf(state, frontend, service).filter((entry) => entry !== own)
  const rule = disagreement(others, candidate)
  if (rule === undefined) return undefined
  return new ServiceRefused({ frontend: frontendText(frontend), service: serviceName(service), rule })
}

const disagreement = (
  members: ReadonlyArray<MappingEntry>,
  { mode, labels }: Candidate
): string | undefined => {
  const [member] = members
  if (member === undefined) return undefined
  if (members.length >= maxMembers) return `a service of fewer than ${maxMembers} backends`
  return differing(member.mapping, mode, labels)
}

/** What this mode and these labels would need, to be those of a backend beside `member`. */
const differing = (member: Mapping, mode: Mode, labels: Labels): string | undefined => {
  if (mode !== member.mode) return `mode ${member.mode}, like the others (not ${mode})`
  const others = new Map(sharedPolicy(member.labels))
  for (const [name, value] of sharedPolicy(labels)) {
    const other = others.get(name) ?? ""
    if (value !== other) return `${labelText(name, other)}, like the others (not ${labelText(name, value)})`
  }
  return undefined
}

const labelText = (name: string, value: string): string => (value === "" ? `no ${name}` : `${name}=${value}`)

/** The same resources with another part in the service. */
export const resourcesWith = ({ rules, route, ...rest }: Resources, share: Share): Resources => {
  const isRedirected = rules.some(({ _tag }) => _tag === "Redirect")
  return {
    ...rest,
    rules: rules.map((rule) => (rule._tag === "Redirect" ? { ...rule, share } : rule)),
    route: route && { ...route, share, admits: isRedirected ? admissionBeside({ share }) : route.admits }
  }
}

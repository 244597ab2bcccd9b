/**
 * One container in two networks: its runtime asks for the same ports once for each attachment. The first one that is
 * mapped serves; the others are recorded as standbys, and the oldest takes the frontend over in the same change that
 * releases it. Pure; `Apply` carries it out.
 */
import { Result } from "effect"
import {
  frontendKey,
  isConflicted,
  type Mapping,
  type MappingEntry,
  type Mappings,
  noResources,
  type Resources
} from "../model/Mapping.ts"
import { type Capabilities, planAgain, resourcesOf, type Served } from "./Plan.ts"

type State = Mappings["Service"]

/** Whether two owners of the form `KIND:CONTAINER/ATTACHMENT` are two attachments of one container. */
export const areOfOneContainer = (one: string, other: string): boolean =>
  one !== other && containerOf(one) !== undefined && containerOf(one) === containerOf(other)

const containerOf = (owner: string): string | undefined => /^([^:/]+:[^/]+)\/./.exec(owner)?.[1]

/**
 * Whether a claim waits for its frontend, which another attachment of the same container has and does not lose. What
 * else holds the port beside that one is not in the way of a mapping that takes its place.
 */
export const standsBehind = (
  holders: ReadonlyArray<MappingEntry>,
  staying: ReadonlyArray<MappingEntry>,
  { entry }: Served,
  owner: string
): boolean => {
  const isThere = ({ mapping }: MappingEntry) => mapping.host.key === entry.host.key
  const before = holders.find((holder) => !holder.mapping.standby && isThere(holder))
  if (before?.mapping.share !== undefined) return false
  return before !== undefined && areOfOneContainer(before.mapping.owner, owner) && staying.some(isThere)
}

/** The same entry, which needs nothing of the host yet. */
export const plannedStandby = (planned: Served): Served => ({
  ...planned,
  reserves: false,
  redirects: false,
  shields: false,
  relays: undefined
})

/** These entries, each followed by the standbys of its frontend. */
export const withStandbys = (
  state: State,
  entries: ReadonlyArray<MappingEntry>
): ReadonlyArray<MappingEntry> =>
  entries.flatMap((entry) => (entry.mapping.standby ? [entry] : [entry, ...state.standbys(entry.mapping)]))

/** A standby that takes over from an entry that is released. */
export interface Succession {
  readonly from: MappingEntry
  readonly entry: MappingEntry
  readonly mapping: Mapping
  /** `undefined` where it can't be served yet: then it is in conflict, and is retried. */
  readonly planned: Served | undefined
  readonly resources: Resources
}

/** What follows when these entries are released together. */
export const successionsOf = (
  { mappings, capabilities }: { readonly mappings: State; readonly capabilities: Capabilities },
  released: ReadonlyArray<MappingEntry>
): ReadonlyArray<Succession> =>
  released.flatMap((from): ReadonlyArray<Succession> => {
    if (from.mapping.standby) return []
    const entry = mappings.standbys(from.mapping).find((standby) => !released.includes(standby))
    if (entry === undefined) return []
    const mapping = withFrontend(entry.mapping)
    const again = planAgain(mapping, capabilities)
    if (isConflicted(from) || Result.isFailure(again))
      return [{ from, entry, mapping, planned: undefined, resources: noResources }]
    const { planned, policy } = again.success
    const resources = resourcesOf(planned, policy, mapping, from.resources.hold)
    return [{ from, entry, mapping, planned, resources }]
  })

/**
 * The oldest standby of each frontend that nothing has any more: a call replaced the entry before it by one without a
 * host port, or a kill cut such a call short. Lazy: one that has taken its frontend meanwhile is not returned.
 */
export const orphansOf = (state: State): IterableIterator<MappingEntry> =>
  state.all().filter((entry) => {
    if (!entry.mapping.standby || state.standbys(entry.mapping)[0] !== entry) return false
    const { protocol, host, port } = entry.mapping
    return state.get(frontendKey(protocol, host, port)) === undefined
  })

/** The mapping that a standby becomes. */
export const withFrontend = ({ standby: _, ...mapping }: Mapping): Mapping => mapping

/** Makes a standby the entry of its frontend. */
export const takeFrontend = (state: State, entry: MappingEntry, mapping: Mapping): void => {
  state.delete(entry)
  entry.mapping = mapping
  state.add(entry)
}

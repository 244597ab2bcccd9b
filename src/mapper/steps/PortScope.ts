/** Which ports are unique in the cluster, and what the mapper claims of them. Where there is no cluster, none is. */
import { Effect } from "effect"
import type { Claimant, ClusterUnavailable, PortAllocated } from "../../ports/PortAllocator.ts"
import type { Claimed, ClusterPort, Wanted } from "../../ports/PortClaims.ts"
import { isLoopback } from "../../protocol/Address.ts"
import type { GroupsError } from "../../protocol/Driver.ts"
import { endpointText, type Labels } from "../../protocol/PortBinding.ts"
import { containerOf, type MapperContext } from "../MapperContext.ts"
import type { Mapping, MappingEntry } from "../model/Mapping.ts"
import type { Creation } from "../plan/Change.ts"
import type { PlannedGroup } from "../plan/Claims.ts"
import type { Capabilities } from "../plan/Plan.ts"
import { serviceOf } from "../plan/Services.ts"

/** For whom a mapping's port is claimed in the cluster; `undefined` if it is unique on this host alone. */
export const claimantOf = (
  { capabilities, backends }: MapperContext,
  mapping: Pick<Mapping, "labels" | "backend" | "owner" | "share" | "container">
): Claimant | undefined =>
  isLabelled(mapping.labels, capabilities)
    ? {
        owner: mapping.owner,
        backend: endpointText(mapping.backend),
        container: containerOf(mapping, backends),
        service: mapping.share?.service
      }
    : undefined

const isLabelled = (labels: Labels, { scope }: Capabilities): boolean =>
  scope !== undefined && (labels.get("portmapper.scope") ?? scope) === "cluster"

/** A loopback address is of one host, and what has no host port, or waits for it, holds none. */
const isInCluster = (mapping: Mapping, capabilities: Capabilities): boolean =>
  mapping.mode !== "routed" &&
  mapping.standby === undefined &&
  !isLoopback(mapping.host) &&
  isLabelled(mapping.labels, capabilities)

/** The frontends that these new mappings reserve, and for whom in the cluster. */
export const reservedBy = (context: MapperContext, create: ReadonlyArray<Creation>) => {
  const reserving = create.filter(({ planned }) => planned.reserves)
  const [first] = reserving
  return {
    frontends: reserving.map(({ planned }) => planned.entry),
    claimant: first && claimantOf(context, first.mapping)
  }
}

/** What these groups need of the cluster. */
const wantedOf = (
  context: MapperContext,
  groups: ReadonlyArray<PlannedGroup>,
  owner: string
): ReadonlyArray<Wanted> =>
  groups.flatMap(({ index, group: { ports, labels }, plan }): ReadonlyArray<Wanted> => {
    const frontends = plan.entries.flatMap((planned) =>
      planned._tag === "Served" && planned.reserves && !isLoopback(planned.entry.host) ? [planned.entry] : []
    )
    const [first] = frontends
    const mapping = first && { labels, backend: first.backend, owner, container: undefined }
    const claimant = mapping && claimantOf(context, mapping)
    if (claimant === undefined) return []
    const service = serviceOf(plan.policy, owner)
    return [{ group: index, frontends, ports, claimant: { ...claimant, service } }]
  })

/** What these mappings need of it, to be served again. */
export const wantedAgain = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): ReadonlyArray<Wanted> =>
  portsInCluster(context, entries).map(({ host, protocol, port, claimant }) => ({
    group: 0,
    frontends: [{ protocol, host }],
    ports: { _tag: "Exact", port },
    claimant
  }))

/** The ports of these mappings that are unique in the cluster. */
export const portsInCluster = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): ReadonlyArray<Claimed & Pick<Mapping, "host">> =>
  entries.flatMap(({ mapping }) => {
    const claimant = isInCluster(mapping, context.capabilities) ? claimantOf(context, mapping) : undefined
    const { host, protocol, port } = mapping
    return claimant === undefined ? [] : [{ host, protocol, port, claimant }]
  })

/** The entries on these ports that are unique in the cluster. */
export const entriesAt = (
  { mappings, capabilities }: MapperContext,
  ports: ReadonlyArray<ClusterPort>
): ReadonlyArray<MappingEntry> =>
  ports.flatMap(({ protocol, port }) =>
    [...mappings.at(protocol, port)].filter(({ mapping }) => isInCluster(mapping, capabilities))
  )

/** Runs a change that these groups need, and which takes the lock, once their ports are claimed. */
export const claiming = <A, E>(
  context: MapperContext,
  groups: ReadonlyArray<PlannedGroup>,
  owner: string,
  change: Effect.Effect<A, GroupsError<E>>
): Effect.Effect<A, GroupsError<E | PortAllocated | ClusterUnavailable>> =>
  context.capabilities.scope === undefined
    ? change
    : Effect.ensuring(
        context.claims.during(wantedOf(context, groups, owner), change),
        settle(context, groups)
      )

/** Runs a change under the lock. Gives back what nothing needs after it. */
export const changing = <A, E, R>(context: MapperContext, change: Effect.Effect<A, E, R>) => {
  const changed = context.mappings.lock.withPermit(change)
  return context.capabilities.scope === undefined ? changed : Effect.ensuring(changed, settle(context))
}

/** Gives back what nothing needs any more. */
const settle = (context: MapperContext, groups: ReadonlyArray<PlannedGroup> = []): Effect.Effect<void> =>
  context.claims.settle({
    named: groups.flatMap(({ group: { ports, entries } }) =>
      ports._tag === "Exact" ? entries.map(({ protocol }) => ({ protocol, port: ports.port })) : []
    ),
    isNeeded: (port) => entriesAt(context, [port]).length > 0,
    exclusively: (run) => context.mappings.lock.withPermit(run)
  })

/**
 * Computes the actions that turn what is observed into what is desired. Pure. A group's previous port is requested
 * again, so that a container keeps it when it or this process restarts.
 */
import { idleLabel } from "../../src/mapper/model/Labels.ts"
import { groupsAtOnce } from "../../src/protocol/Driver.ts"
import type { PortRequest, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import type { DesiredGroup } from "./Desired.ts"
import { entryText, type Observed, type ObservedGroup, signatureOf } from "./Observed.ts"

/** Bindings of a group that is no longer desired, or that has another backend now. */
export interface ReleaseAction {
  readonly key: string
  readonly bindings: ReadonlyArray<ReleasedBinding>
}

/** Maps a group: on its previous port, if it had one, else as it was requested. */
export interface MapAction {
  readonly desired: DesiredGroup
  readonly tries: ReadonlyArray<PortRequest>
}

export interface Difference {
  /** To do before any mapping. */
  readonly release: ReadonlyArray<ReleaseAction>
  readonly map: ReadonlyArray<MapAction>
  /** What groups had that move to another address of their container: to do once they have moved. */
  readonly after: ReadonlyArray<ReleaseAction>
}

/** The ports that groups had when they were last mapped. */
export type Granted = ReadonlyMap<string, number>

export const difference = (
  groups: ReadonlyArray<DesiredGroup>,
  observed: Observed,
  granted: Granted
): Difference => {
  const desired = new Map(groups.map((each) => [each.key, each]))
  const undesired = [...observed].flatMap(([key, { bindings }]): ReadonlyArray<ReleaseAction> => {
    const entries = new Set(desired.get(key)?.group.entries.map(entryText))
    const left = bindings.filter((binding) => !entries.has(entryText(binding)))
    return left.length === 0 ? [] : [{ key, bindings: left }]
  })
  const moves = ({ key }: ReleaseAction) => isMoved(desired.get(key), observed.get(key))
  const changed = [...desired.values()].filter(
    ({ key, group }) => observed.get(key)?.signature !== signatureOf(group)
  )
  return {
    release: undesired.filter((action) => !moves(action)),
    map: mapActions(changed, observed, granted),
    after: undesired.filter(moves)
  }
}

/** The mapper moves a mapping where it is idle on either side: its port is not released in between. */
const isMoved = (desired: DesiredGroup | undefined, observed: ObservedGroup | undefined): boolean =>
  desired !== undefined && observed !== undefined && (observed.idle || desired.group.labels.has(idleLabel))

/** Exact ports first, so that no range picks one of them. */
export const mapActions = (
  groups: ReadonlyArray<DesiredGroup>,
  observed: Observed,
  granted: Granted
): ReadonlyArray<MapAction> =>
  groups
    .map((desired): MapAction => {
      const { ports } = desired.group
      const before = observed.get(desired.key)?.port ?? granted.get(desired.key) ?? 0
      const tries =
        ports._tag === "Exact" || before === 0 ? [ports] : [{ _tag: "Exact", port: before } as const, ports]
      return { desired, tries }
    })
    .sort((a, b) => rank(a) - rank(b))

/** Batches of one owner each, in order, and small enough for one call. */
export const batchesOf = (actions: ReadonlyArray<MapAction>): ReadonlyArray<ReadonlyArray<MapAction>> => {
  const batches: Array<Array<MapAction>> = []
  for (const action of actions) {
    const last = batches.at(-1)
    if (last?.[0]?.desired.owner === action.desired.owner && last.length < groupsAtOnce) last.push(action)
    else batches.push([action])
  }
  return batches
}

const rank = ({ tries: [first] }: MapAction): number => (first?._tag === "Exact" ? 0 : 1)

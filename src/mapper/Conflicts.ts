/**
 * What of a group is mapped already, and what stands in its way: who gives way to it, and who refuses it.
 */
import { Clock, Effect } from "effect"
import { PortAllocated } from "../ports/PortAllocator.ts"
import { frontendText, type Group } from "../protocol/PortBinding.ts"
import type { Host } from "./Host.ts"
import {
  type EngineEpoch,
  frontendKey,
  isConflicted,
  isStale,
  type Live,
  mappingKey,
  sameBackend
} from "./Mapping.ts"
import type { Plan, Served } from "./Plan.ts"
import { comeBack, recoverLives } from "./Recover.ts"
import type { Step } from "./Transaction.ts"
import { removeLives, type UnmapError } from "./UnmapPorts.ts"

/** An entry that is served. */
export interface Placement {
  readonly planned: Served
  /** The mapping that it has already, if any. */
  readonly live: Live | undefined
  /** The same binding with a host port, where the entry wants none from now on. */
  readonly supersedes: Live | undefined
}

/** Takes mappings out of the way. Where a later step fails, or the answer is lost, they are mapped as before. */
export type GiveWay = (lives: ReadonlyArray<Live>) => Effect.Effect<void, UnmapError>

export const givingWay =
  (step: Step, on: Host, gone: Array<Live>): GiveWay =>
  (lives) => {
    const undo = () => comeBack(on, lives)
    // Of several that are removed one by one, some may be gone when another can't be.
    const removed = Effect.tapError(removeLives(on, lives), undo)
    return step(
      Effect.map(removed, () => void gone.push(...lives)),
      undo
    )
  }

/**
 * Finds what of the group is mapped already, and settles what stands in its way: a mapping that nobody confirmed, one
 * of an Engine long gone, or one whose container is gone gives way; any other refuses the group.
 */
export const settleConflicts = (
  giveWay: GiveWay,
  on: Host,
  group: Group,
  plan: Plan
): Effect.Effect<ReadonlyArray<Placement>, PortAllocated | UnmapError> => {
  const placements = plan.entries
    .filter((planned) => planned._tag === "Served")
    .map(
      (planned): Placement => ({
        planned,
        live: mappedAlready(on, planned, group),
        supersedes: inOtherMode(on, planned, group)
      })
    )
  const conflicted = placements.flatMap(({ live }) => live ?? []).filter(isConflicted)
  if (conflicted.length === 0) return settleInTheWay(giveWay, on, group, placements)
  // What is asked for again is served again, if it can be by now.
  return Effect.flatMap(recoverLives(on, conflicted), () =>
    settleInTheWay(
      giveWay,
      on,
      group,
      placements.map((each) =>
        each.live !== undefined && isConflicted(each.live) ? { ...each, live: undefined } : each
      )
    )
  )
}

const settleInTheWay = (
  giveWay: GiveWay,
  on: Host,
  { ports }: Group,
  placements: ReadonlyArray<Placement>
): Effect.Effect<ReadonlyArray<Placement>, PortAllocated | UnmapError> => {
  const isOwn = (holder: Live) => placements.some(({ live }) => live === holder)
  const inTheWay = placements.flatMap(({ planned: { entry, reserves }, live }) =>
    live !== undefined || !reserves || ports._tag !== "Exact"
      ? []
      : on.mappings
          .colliding(entry.protocol, entry.host, ports.port)
          .filter((holder) => !isConflicted(holder) && !isOwn(holder))
          .map((holder) => ({ frontend: frontendText(entry.protocol, entry.host, ports.port), holder }))
  )
  return inTheWay.length === 0
    ? Effect.succeed(placements)
    : Effect.as(displace(giveWay, on, inTheWay), placements)
}

const displace = Effect.fnUntraced(function* (
  giveWay: GiveWay,
  on: Host,
  inTheWay: ReadonlyArray<{ readonly frontend: string; readonly holder: Live }>
): Effect.fn.Return<void, PortAllocated | UnmapError> {
  const displaced = new Set<Live>()
  for (const { frontend, holder } of inTheWay) {
    if (displaced.has(holder)) continue
    if (!(yield* givesWay(on, holder)))
      return yield* new PortAllocated({ frontend, hint: ` (${holderText(holder)})` })
    displaced.add(holder)
  }
  yield* giveWay([...displaced])
})

/** The mapping that this very entry has, if it asks for an exact port or for none at all. */
const mappedAlready = ({ mappings }: Host, { entry, mode }: Served, { ports }: Group): Live | undefined => {
  if (mode !== "routed" && ports._tag !== "Exact") return undefined
  const port = ports._tag === "Exact" ? ports.port : 0
  const live = mappings.get(mappingKey({ ...entry, port, mode }))
  return live !== undefined && sameBackend(live.mapping.backend, entry.backend) ? live : undefined
}

const inOtherMode = ({ mappings }: Host, { entry, mode }: Served, { ports }: Group): Live | undefined => {
  if (mode !== "routed" || ports._tag !== "Exact") return undefined
  const live = mappings.get(frontendKey(entry.protocol, entry.host, ports.port))
  return live !== undefined && sameBackend(live.mapping.backend, entry.backend) ? live : undefined
}

const givesWay = Effect.fnUntraced(function* ({ mappings, backends }: Host, holder: Live) {
  const nowMillis = yield* Clock.currentTimeMillis
  // Whoever asked is about to be told that it is theirs.
  if (holder.deliveries.size > 0) return false
  if (isAbandoned(holder, mappings.engine, nowMillis)) return true
  if (nowMillis - holder.mapping.sinceMillis < startMillis) return false
  return (yield* backends.stateOf(holder.mapping.backend)) === "gone"
})

/** A container is published before it runs: for so long after it nobody takes it for gone. */
const startMillis = 30_000

/** Not what is being answered with. */
export const isAbandoned = (live: Live, engine: EngineEpoch, nowMillis: number): boolean =>
  live.deliveries.size === 0 && (live.standing === "unconfirmed" || isStale(live, engine, nowMillis))

/** Who holds the port, since when, and how to free it. */
const holderText = ({ mapping }: Live): string => {
  const { protocol, backend, owner, sinceMillis } = mapping
  const since = new Date(sinceMillis).toISOString()
  const to = `${backend.address.text} port ${backend.port}`
  return `held by ${owner} for ${to} since ${since}; free it with: portmapper unmap -p ${frontendText(protocol, mapping.host, mapping.port)} --owner any`
}

/** How the groups of a container that sleeps are mapped: with traffic once their ports take connections. Pure. */
import { Duration, Result } from "effect"
import { type Idle, idleLabel, type Policy, parsePolicy } from "../../src/mapper/model/Labels.ts"
import { defaultWakeTimeout } from "../../src/mapper/plan/Waiting.ts"
import { publishLabel } from "../../src/protocol/FollowLabels.ts"
import type { Endpoint, Labels } from "../../src/protocol/PortBinding.ts"
import { restingPlace } from "../../src/protocol/RestingPlace.ts"
import { type Desired, type DesiredGroup, healthLabel, together } from "./Desired.ts"
import { type Container, isUnready } from "./Engine.ts"
import type { Rest } from "./Sleeper.ts"
import type { WatchState } from "./WatchState.ts"

/** What a container requests, and by which labels. */
export interface Candidate {
  /** `undefined` if it does not exist now, or if the request leads to addresses. */
  readonly container: Container | undefined
  readonly labels: Labels
  /** `sleeps`: also while it does not run. */
  readonly desired: (sleeps: boolean) => Desired
}

/** A port that is to be waited for. */
export interface AwaitedPort {
  readonly id: string
  readonly key: string
  readonly endpoint: Endpoint
}

/** What all of them request, and the ports of those that were just started. */
export interface DesiredNow {
  readonly desired: Desired
  readonly awaited: ReadonlyArray<AwaitedPort>
  /** Whether a container that slept is none of them now. */
  readonly hasDropped: boolean
}

/** Looks at those that may sleep first: how one is mapped depends on those that share its port. */
export const desiredOf = (
  state: WatchState,
  candidates: ReadonlyArray<Candidate>,
  containers: ReadonlyArray<Container>,
  nowMillis: number
): DesiredNow => {
  const { sleepers } = state
  const sleeping = sleepingAmong(state, candidates, nowMillis)
  const hasDropped = sleepers.keep(
    new Set([...sleeping.keys()].flatMap(({ container }) => container?.id ?? [])),
    new Set(containers.map(({ id }) => id))
  )
  const awaited = [...sleeping].flatMap(([candidate, desired]) =>
    awaitedOf(state, candidate, desired, nowMillis)
  )
  const fellows = [...state.fellows().values()]
  const desired = candidates.map((candidate): Desired => {
    const own = sleeping.get(candidate)
    const id = candidate.container?.id ?? ""
    if (own === undefined) return candidate.desired(false)
    const near = fellows.filter((each) => each.some((fellow) => fellow.id === id)).flat()
    const groups = own.groups.map((group) => {
      const idle = sleepers.idleOf(id, group.key, near, nowMillis)
      if (idle === undefined) return group
      // What is still open to its address is looked at once more.
      const idling = withoutTraffic(idle, group)
      return sleepers.get(id)?.phase === "closing" ? idling : atRest(id, idling)
    })
    return { ...own, groups }
  })
  return { desired: together(desired), awaited, hasDropped }
}

/** What those request that sleep, or may. */
const sleepingAmong = (
  { sleepers, observed }: WatchState,
  candidates: ReadonlyArray<Candidate>,
  nowMillis: number
): ReadonlyMap<Candidate, Desired> => {
  const found = new Map<Candidate, Desired>()
  for (const own of Map.groupBy(candidates, ({ container }) => container?.id).values()) {
    const asking = own.flatMap((candidate) => {
      const rest = restOf(candidate.labels)
      return rest === undefined ? [] : [{ candidate, rest, desired: candidate.desired(true) }]
    })
    const [first] = asking
    const container = first?.candidate.container
    if (first === undefined || container === undefined) continue
    const groups = asking.flatMap(({ desired }) => desired.groups)
    const serving = new Set(groups.flatMap(({ key }) => (observed.get(key)?.idle === false ? [key] : [])))
    const health = first.candidate.labels.get(healthLabel)
    const unready = isUnready(container, health) ? container.unready : undefined
    const seen = { container: { ...container, unready }, rest: first.rest, serving }
    if (sleepers.see(seen, nowMillis) === undefined) continue
    sleepers.setPorts(
      container.id,
      new Map(groups.map(({ key, group }) => [key, group.entries[0]?.backend.port ?? 0]))
    )
    for (const { candidate, desired } of asking) found.set(candidate, desired)
  }
  return found
}

/** Opens the groups whose ports surely take connections; returns those to be tried. */
const awaitedOf = (
  { sleepers }: WatchState,
  { container, labels }: Candidate,
  { groups }: Desired,
  nowMillis: number
): ReadonlyArray<AwaitedPort> =>
  groups.flatMap((group) => {
    const { key } = group
    const endpoint = group.group.entries[0]?.backend
    if (container === undefined || endpoint === undefined || !sleepers.isClosed(container.id, key)) return []
    const takes = takesConnections(container, labels, group)
    if (takes === true) sleepers.opened(container.id, key, nowMillis)
    return takes === undefined ? [{ id: container.id, key, endpoint }] : []
  })

/** Whether a container may sleep, as far as its own and its image's labels say. */
export const mayAskToSleep = ({ labels }: Container): boolean =>
  labels.has(publishLabel) && labels.get("portmapper.wake") === "on"

/** How these labels let a container sleep, if they do. Invalid ones don't. */
const restOf = (labels: Labels): Rest | undefined => {
  const { wake, wakeTimeout, wakeCount, sleep } = Result.getOrElse(
    parsePolicy(labels),
    (): Partial<Policy> => ({})
  )
  if (!wake) return undefined
  return {
    timeoutMillis: Duration.toMillis(wakeTimeout ?? defaultWakeTimeout),
    count: wakeCount ?? 1,
    sleepMillis: sleep && Duration.toMillis(sleep)
  }
}

/**
 * Whether the port of a group takes connections, in a container that was just started; `undefined` where only an attempt
 * shows it: TCP, without a health check.
 */
const takesConnections = (
  container: Container,
  labels: Labels,
  { group }: DesiredGroup
): boolean | undefined => {
  if (isUnready(container, labels.get(healthLabel))) return false
  return container.healthy === true || group.entries[0]?.protocol !== "tcp" ? true : undefined
}

const withoutTraffic = (idle: Idle, { group, ...desired }: DesiredGroup): DesiredGroup => ({
  ...desired,
  group: { ...group, labels: new Map([...group.labels, [idleLabel, idle]]) }
})

/** The same group where it leads to no address: its container has none, or is about to lose it. */
const atRest = (id: string, { group, ...desired }: DesiredGroup): DesiredGroup => {
  const address = restingPlace(id)
  const entries = group.entries.map((entry) => ({ ...entry, backend: { ...entry.backend, address } }))
  return { ...desired, group: { ...group, entries } }
}

/**
 * `restore`: brings back what was mapped when an earlier process ended. Ports are held again, the kernel's table is
 * replaced in one transaction so that traffic never notices, and what was never finished is undone.
 */
import { Clock, Effect, Result } from "effect"
import { Firewall, type FirewallError } from "../firewall/Firewall.ts"
import { type Hold, PortAllocator } from "../ports/PortAllocator.ts"
import { isUnspecified } from "../protocol/Address.ts"
import { Relay } from "../relay/Relay.ts"
import { MapperConfig, type MapperServices } from "./Host.ts"
import { type Live, type Mapping, Mappings, mappingText, sameBackend } from "./Mapping.ts"
import { MappingStore, type Stored, type StoreError } from "./MappingStore.ts"
import { type Capabilities, type Plan, planGroup, routeOf, rulesOf } from "./Plan.ts"

export interface Restored {
  readonly live: number
  readonly unconfirmed: number
  /** Each as `0.0.0.0:8080/tcp: why`. */
  readonly conflicted: ReadonlyArray<string>
  readonly undone: number
}

/** Runs once, before the first call is served. Fails only where the store can't be read or the kernel's table can't be set. */
export const restore: Effect.Effect<Restored, StoreError | FirewallError, MapperServices> = Effect.gen(
  function* () {
    const store = yield* MappingStore
    const mappings = yield* Mappings
    const firewall = yield* Firewall
    const stored = yield* store.load
    mappings.engine.number = stored.epoch
    mappings.engine.sinceMillis = yield* Clock.currentTimeMillis

    const intents = stored.mappings.filter(({ state }) => state === "intent")
    const kept = stored.mappings.filter(({ state }) => state !== "intent").sort(widestFirst)
    const conflicted: Array<string> = []
    const lives: Array<Live> = []
    for (const each of kept) {
      const live = yield* bringBack(each, lives)
      lives.push(live.live)
      if (live.why !== undefined) conflicted.push(`${mappingText(each.mapping)}: ${live.why}`)
    }
    yield* firewall.replace(lives.flatMap(({ rules }) => rules))
    for (const live of lives) {
      const why = yield* serveAgain(live)
      if (why !== undefined) conflicted.push(`${mappingText(live.mapping)}: ${why}`)
      mappings.add(live)
    }
    if (intents.length > 0) yield* store.remove(intents.map(({ mapping }) => mapping))
    for (const text of conflicted)
      yield* Effect.logWarning(`could not be restored, and is kept as conflicted: ${text}`)
    return {
      live: lives.filter(({ standing }) => standing === "answered").length,
      unconfirmed: lives.filter(({ standing }) => standing === "unconfirmed").length,
      conflicted,
      undone: intents.length
    }
  }
)

/** Sockets of unspecified addresses are bound first, since they cover the others of their group. */
const widestFirst = (a: Stored, b: Stored): number =>
  Number(isUnspecified(b.mapping.host)) - Number(isUnspecified(a.mapping.host))

const bringBack = Effect.fnUntraced(function* ({ mapping, state }: Stored, earlier: ReadonlyArray<Live>) {
  const capabilities = yield* MapperConfig
  const standing = state === "answered" ? "answered" : "unconfirmed"
  const replanned = planAgain(mapping, capabilities)
  if (Result.isFailure(replanned)) return conflictedLive(mapping, replanned.failure)
  const { plan } = replanned.success
  const [planned] = plan.entries
  if (planned === undefined || planned._tag === "Discarded")
    return conflictedLive(mapping, planned?.reason ?? "there is nothing to serve")
  const allocator = yield* PortAllocator
  const held = planned.reserves
    ? yield* Effect.result(
        allocator.reserve([mapping], { _tag: "Exact", port: mapping.port }, coveringHolds(mapping, earlier))
      )
    : Result.succeed<ReadonlyArray<Hold>>([])
  if (Result.isFailure(held)) return conflictedLive(mapping, held.failure.message)
  const [hold] = held.success
  const live: Live = {
    mapping,
    standing,
    hold,
    rules: rulesOf(planned, mapping.port, plan.policy),
    route: hold === undefined ? undefined : routeOf(planned, hold, plan.policy),
    deliveries: new Set()
  }
  return { live, why: undefined }
})

const serveAgain = Effect.fnUntraced(function* (live: Live) {
  if (live.route === undefined) return undefined
  const userland = yield* Relay
  const opened = yield* Effect.result(userland.open(live.route))
  if (Result.isSuccess(opened)) return undefined
  live.route = undefined
  return opened.failure.message
})

/** The same plan as when it was asked, in the mode that it got then. */
const planAgain = (
  mapping: Mapping,
  capabilities: Capabilities
): Result.Result<{ readonly plan: Plan }, string> => {
  const { protocol, host, asked, backend, port, labels } = mapping
  const group = {
    entries: [{ protocol, host, asked, backend }],
    ports: { _tag: "Exact", port },
    labels
  } as const
  return Result.mapBoth(planGroup(group, { ...capabilities, defaultMode: mapping.mode }), {
    onFailure: (error) => error.message,
    onSuccess: (plan) => ({ plan })
  })
}

/** The holds of the same group: same port, same backend. */
const coveringHolds = (mapping: Mapping, earlier: ReadonlyArray<Live>): ReadonlyArray<Hold> =>
  isUnspecified(mapping.host)
    ? []
    : earlier.flatMap(({ mapping: other, hold }) =>
        other.port === mapping.port &&
        other.protocol === mapping.protocol &&
        hold !== undefined &&
        sameBackend(other.backend, mapping.backend)
          ? [hold]
          : []
      )

const conflictedLive = (mapping: Mapping, why: string): { readonly live: Live; readonly why: string } => ({
  live: {
    mapping,
    standing: "conflicted",
    hold: undefined,
    rules: [],
    route: undefined,
    deliveries: new Set()
  },
  why
})

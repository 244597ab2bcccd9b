/**
 * Serving again what was mapped: its port is held anew, its rules are the same as when it was asked for, and so is its
 * route. What can't be is conflicted, and says why.
 */
import { Effect, Result } from "effect"
import type { Hold } from "../ports/PortAllocator.ts"
import { isUnspecified } from "../protocol/Address.ts"
import type { Host } from "./Host.ts"
import { type Live, type Mapping, mappingText, sameBackend, setAside } from "./Mapping.ts"
import { type Capabilities, type Plan, planGroup, routeOf, rulesOf, type Served } from "./Plan.ts"

/** A mapping that was tried to bring back, and why that could not be done. */
export interface Attempt {
  readonly live: Live
  readonly planned: Served | undefined
  readonly why: string | undefined
}

/** Sockets of unspecified addresses are bound first, since they cover the others of their group. */
export const widestFirst = (a: { readonly mapping: Mapping }, b: { readonly mapping: Mapping }): number =>
  Number(isUnspecified(b.mapping.host)) - Number(isUnspecified(a.mapping.host))

/** Plans and holds it again; what it serves is not changed. `siblings` may be of its group: same port, other address. */
export const bringBack = Effect.fnUntraced(function* (
  { capabilities, allocator }: Host,
  mapping: Mapping,
  was: "answered" | "unconfirmed",
  siblings: ReadonlyArray<Live>
) {
  const replanned = planAgain(mapping, capabilities)
  if (Result.isFailure(replanned)) return conflict(mapping, was, replanned.failure)
  const { plan, planned } = replanned.success
  const beside = siblings.flatMap(({ mapping: { backend }, hold }) =>
    hold !== undefined && sameBackend(backend, mapping.backend) ? [hold] : []
  )
  const held = planned.reserves
    ? yield* Effect.result(allocator.reserve([mapping], { _tag: "Exact", port: mapping.port }, beside))
    : Result.succeed<ReadonlyArray<Hold>>([])
  if (Result.isFailure(held)) return conflict(mapping, was, held.failure.message)
  const [hold] = held.success
  const live: Live = {
    mapping,
    standing: was,
    hold,
    rules: rulesOf(planned, mapping.port, plan.policy),
    route: hold === undefined ? undefined : routeOf(planned, hold, plan.policy),
    deliveries: new Set()
  }
  return { live, planned, why: undefined } satisfies Attempt
})

/** The same plan as when it was asked, in the mode that it got then. */
export const planAgain = (
  mapping: Mapping,
  capabilities: Capabilities
): Result.Result<{ readonly plan: Plan; readonly planned: Served }, string> => {
  const { protocol, host, asked, backend, port, labels } = mapping
  const group = {
    entries: [{ protocol, host, asked, backend }],
    ports: { _tag: "Exact", port },
    labels
  } as const
  const plan = planGroup(group, { ...capabilities, defaultMode: mapping.mode })
  if (Result.isFailure(plan)) return Result.fail(plan.failure.message)
  const [planned] = plan.success.entries
  return planned?._tag === "Served"
    ? Result.succeed({ plan: plan.success, planned })
    : Result.fail(planned?.reason ?? "there is nothing to serve")
}

const conflict = (mapping: Mapping, was: "answered" | "unconfirmed", why: string): Attempt => ({
  live: {
    mapping,
    standing: "conflicted",
    was,
    hold: undefined,
    rules: [],
    route: undefined,
    deliveries: new Set()
  },
  planned: undefined,
  why
})

/** Lets the relay serve it. Where nothing else leads its traffic, a relay that refuses makes it conflicted. */
export const serveAgain = Effect.fnUntraced(function* (on: Host, { live, planned }: Attempt) {
  if (live.route === undefined) return undefined
  const opened = yield* Effect.result(on.relay.open(live.route))
  if (Result.isSuccess(opened)) return undefined
  const why = opened.failure.message
  live.route = undefined
  if (planned?.redirects || planned?.nat) {
    live.unrelayed = true
    yield* Effect.logWarning(`${mappingText(live.mapping)} is redirected, but not relayed: ${why}`)
    return undefined
  }
  yield* letGo(on, live)
  setAside(live)
  return why
})

const letGo = Effect.fnUntraced(function* ({ firewall, allocator }: Host, live: Live) {
  if (live.rules.length > 0)
    yield* reported("removing rules", firewall.apply({ add: [], remove: live.rules }))
  if (live.hold !== undefined) yield* allocator.release([live.hold])
})

/** Bringing back goes on past what it can't do, and tells. */
export const reported = <E extends { readonly message: string }, R>(
  what: string,
  effect: Effect.Effect<void, E, R>
): Effect.Effect<void, never, R> =>
  Effect.catch(effect, (error) => Effect.logWarning(`${what}: ${error.message}`))

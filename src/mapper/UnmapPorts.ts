/**
 * `unmapPorts`: takes bindings back. Teardown keeps going past an error and reports them all; what the kernel refuses to
 * give up stays mapped, so that it can be unmapped later.
 */
import { Effect, Result, Schema } from "effect"
import { flowsOfRemoved, forgetFlows } from "../firewall/Conntrack.ts"
import type { FirewallError } from "../firewall/Firewall.ts"
import type { Release, ReleasedBinding } from "../protocol/PortBinding.ts"
import { type Host, host, type MapperServices } from "./Host.ts"
import { frontendKey, type Live, mappingKey, mappingText, routedKey } from "./Mapping.ts"
import { recordedState, type StoreError } from "./MappingStore.ts"

/** Some bindings could not be released; they are mapped as before. */
export class UnmapError extends Schema.TaggedError<UnmapError>()("UnmapError", {
  failures: Schema.Array(Schema.Struct({ frontend: Schema.String, detail: Schema.String }))
}) {
  override get message(): string {
    return this.failures.map(({ frontend, detail }) => `unmapping ${frontend} failed: ${detail}`).join("; ")
  }
}

/** Releases bindings, each known by its frontend and backend. What is not mapped is released already. */
export const unmapPorts = (release: Release): Effect.Effect<void, UnmapError, MapperServices> =>
  Effect.flatMap(host, (on) => unmapPortsOn(on, release))

export const unmapPortsOn = (on: Host, release: Release): Effect.Effect<void, UnmapError> =>
  on.mappings.lock.alone(
    Effect.suspend(() => {
      forgetGone(on, release.bindings)
      const lives = release.bindings.flatMap((binding) => find(on, binding))
      return removeLives(on, lives.length > 1 ? [...new Set(lives)] : lives)
    })
  )

/** Removes these mappings; the caller has the lock. One transaction for all, else one for each, so that one can't keep the others. */
export const removeLives = (on: Host, lives: ReadonlyArray<Live>): Effect.Effect<void, UnmapError> => {
  if (lives.length === 0) return Effect.void
  return Effect.catch(Effect.uninterruptible(removeTogether(on, lives)), (error) => {
    const [only] = lives
    return lives.length === 1 && only !== undefined
      ? Effect.fail(failureOf([[only, error]]))
      : removeEach(on, lives)
  })
}

const removeEach = Effect.fnUntraced(function* (
  on: Host,
  lives: ReadonlyArray<Live>
): Effect.fn.Return<void, UnmapError> {
  const failures: Array<readonly [Live, FirewallError | StoreError]> = []
  for (const live of lives) {
    const alone = yield* Effect.result(Effect.uninterruptible(removeTogether(on, [live])))
    if (Result.isFailure(alone)) failures.push([live, alone.failure])
  }
  if (failures.length > 0) return yield* failureOf(failures)
})

const failureOf = (failures: ReadonlyArray<readonly [Live, FirewallError | StoreError]>) =>
  new UnmapError({
    failures: failures.map(([{ mapping }, error]) => ({
      frontend: mappingText(mapping),
      detail: error.message
    }))
  })

/**
 * The record and the kernel let go, or neither does; what follows can't fail. The record goes first: a removal cut short
 * by a kill is then finished by the restore, where the other way round it would be undone, and nobody would ask again.
 */
const removeTogether = Effect.fnUntraced(function* (on: Host, lives: ReadonlyArray<Live>) {
  const { firewall, store, relay, mappings, allocator, byteCounter } = on
  // A removal that failed may have been made all the same.
  yield* Effect.tapError(store.remove(lives.map(({ mapping }) => mapping)), () => recordAgain(on, lives))
  const rules = lives.flatMap((live) => live.rules)
  if (rules.length > 0)
    yield* Effect.tapCause(firewall.apply({ add: [], remove: rules }), () => recordAgain(on, lives))
  yield* forgetFlows(on.conntrack, flowsOfRemoved(rules))
  yield* byteCounter.forget(rules.filter((rule) => rule._tag === "Redirect"))
  for (const live of lives) {
    if (live.route !== undefined) yield* relay.close(live.route)
    mappings.delete(live)
  }
  yield* allocator.release(lives.flatMap(({ hold }) => hold ?? []))
})

/** Records them as they stand, once that failed or was undone; where even that fails, it is told. */
export const recordAgain = Effect.fnUntraced(function* ({ store }: Host, lives: ReadonlyArray<Live>) {
  for (const state of ["answered", "applied"] as const) {
    const lost = lives.filter((live) => recordedState(live) === state).map(({ mapping }) => mapping)
    if (lost.length > 0)
      // It may be answered as mapped in a moment, and a kill soon after must find it so.
      yield* Effect.catch(again(store.put(lost, state), 3), (error) =>
        Effect.logError(`recording again what is kept: ${error.message}`)
      )
  }
})

/** At once, and so often at most. */
const again = <A, E>(attempt: Effect.Effect<A, E>, times: number): Effect.Effect<A, E> =>
  times === 0 ? attempt : Effect.catch(attempt, () => again(attempt, times - 1))

const find = ({ mappings }: Host, binding: ReleasedBinding): ReadonlyArray<Live> => {
  const { protocol, host, port, backend } = binding
  const published = mappings.get(frontendKey(protocol, host, port))
  if (published !== undefined && leadsTo(published, backend)) {
    // What is about to take its place goes with it.
    const next =
      mappings.underWay.size === 0 ? undefined : mappings.get(routedKey(protocol, published.mapping.backend))
    return next !== undefined && takesPlaceOf(next, published) ? [published, next] : [published]
  }
  if (backend.address === undefined) return []
  const routed = mappings.get(routedKey(protocol, { address: backend.address, port: backend.port }))
  return routed === undefined ? [] : [routed]
}

const takesPlaceOf = ({ deliveries }: Live, other: Live): boolean =>
  [...deliveries].some(({ supersedes }) => supersedes.includes(other))

/** What gave way to a call whose answer is on its way does not come back, if it is unmapped meanwhile. */
const forgetGone = ({ mappings }: Host, bindings: ReadonlyArray<ReleasedBinding>): void => {
  const isNamed = (live: Live) =>
    bindings.some(
      ({ protocol, host, port, backend }) =>
        mappingKey(live.mapping) === frontendKey(protocol, host, port) && leadsTo(live, backend)
    )
  for (const delivery of mappings.underWay)
    if (delivery.gone.length > 0) delivery.gone = delivery.gone.filter((live) => !isNamed(live))
}

const leadsTo = ({ mapping }: Live, { address, port }: ReleasedBinding["backend"]): boolean =>
  address === undefined ||
  port === 0 ||
  (mapping.backend.address.key === address.key && mapping.backend.port === port)

/**
 * Releases entries, and lets their standbys take over. Removes the record first, so that a restore finishes a release
 * which a kill cut short.
 */
import { Effect, Result, Schema } from "effect"
import { flowsOfAdded, flowsOfRemoved, forgetFlows } from "../../firewall/Conntrack.ts"
import { type Change, type FirewallError, withoutRules } from "../../firewall/Firewall.ts"
import type { Hold } from "../../ports/PortAllocator.ts"
import { frontendText } from "../../protocol/PortBinding.ts"
import { eachRoute, type MapperContext, recordAgain } from "../MapperContext.ts"
import { recordedState, type StoreError } from "../MappingStore.ts"
import { type MappingEntry, nextStatus, noResources } from "../model/Mapping.ts"
import { memberText, respread, servicesOf, without } from "../plan/Services.ts"
import { type Succession, successionsOf, takeFrontend } from "../plan/Standby.ts"
import { relayAgain, replaceTable } from "../restore/Restore.ts"
import { reshare, rulesOf, rulesOfShares } from "../steps/Reshare.ts"

/** Some mappings could not be released; they are mapped as before. */
export class UnmapError extends Schema.TaggedError<UnmapError>()("UnmapError", {
  failures: Schema.Array(Schema.Struct({ frontend: Schema.String, detail: Schema.String }))
}) {
  override get message(): string {
    return this.failures.map(({ frontend, detail }) => `unmapping ${frontend} failed: ${detail}`).join("; ")
  }
}

/** Applies the change. If the table is gone, loads it again first. */
export const applyRules = (context: MapperContext, change: Change): Effect.Effect<void, FirewallError> =>
  Effect.catch(context.firewall.apply(change), (error) =>
    error.reason === "Gone"
      ? Effect.andThen(replaceTable(context), context.firewall.apply(change))
      : Effect.fail(error)
  )

/**
 * Releases entries, and lets their standbys take over; the caller holds the lock. Tries one transaction first, then
 * one per entry, so that an entry that can't be released doesn't keep the others.
 */
export const release = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  successions = successionsOf(context, entries)
): Effect.Effect<void, UnmapError> => {
  if (entries.length === 0) return Effect.void
  return Effect.catch(Effect.uninterruptible(releaseTogether(context, entries, successions)), (error) => {
    const [only] = entries
    return entries.length === 1 && only !== undefined
      ? Effect.fail(unmapError([[only, error]]))
      : releaseEach(context, entries, successions)
  })
}

const releaseEach = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  successions: ReadonlyArray<Succession>
): Effect.fn.Return<void, UnmapError> {
  const failures: Array<readonly [MappingEntry, FirewallError | StoreError]> = []
  for (const entry of entries) {
    const own = successions.filter(({ from }) => from === entry)
    const alone = yield* Effect.result(Effect.uninterruptible(releaseTogether(context, [entry], own)))
    if (Result.isFailure(alone)) failures.push([entry, alone.failure])
  }
  if (failures.length > 0) return yield* unmapError(failures)
})

const unmapError = (failures: ReadonlyArray<readonly [MappingEntry, FirewallError | StoreError]>) =>
  new UnmapError({
    failures: failures.map(([{ mapping }, error]) => ({
      frontend: memberText(mapping),
      detail: error.message
    }))
  })

/**
 * Removes the entries from both the record and the kernel, or from neither; the steps after that can't fail. What
 * takes over is recorded and redirected in the same transactions, and the sockets that it needs stay open.
 */
const releaseTogether = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  successions: ReadonlyArray<Succession>
) {
  const { store, relay, mappings, allocator, byteCounter } = context
  const staying = servicesOf(without(mappings, new Set(entries)), entries)
  const others = respread(staying)
  const before = [...entries, ...successions.map(({ entry }) => entry)]
  const records = successions.map(({ entry, mapping }) => ({ mapping, state: recordedState(entry.status) }))
  const removed = before.map(({ mapping }) => mapping)
  // A removal that failed may still have been written.
  yield* Effect.tapError(store.remove(removed, records), () => recordAgain(context, before))
  const rules = withoutRules(
    entries.flatMap(({ resources }) => resources.rules),
    rulesOf(staying)
  )
  const add = [...successions.flatMap(({ resources }) => resources.rules), ...rulesOfShares(others)]
  if (rules.length + add.length > 0) {
    const change = { add, remove: withoutRules(rules, add) }
    yield* Effect.tapCause(applyRules(context, change), () => recordAgain(context, before))
    yield* forgetFlows(context.conntrack, [...flowsOfAdded(add), ...flowsOfRemoved(change.remove)])
    yield* byteCounter.forget(rules.filter((rule) => rule._tag === "Redirect"))
  }
  yield* eachRoute(
    entries.flatMap(({ resources: { route } }) => route ?? []),
    (route) => relay.close(route)
  )
  const holds = new Set<Hold>()
  for (const entry of entries) {
    const { hold } = entry.resources
    mappings.delete(entry)
    entry.status = nextStatus(entry.status, "removed")
    entry.resources = noResources
    if (hold !== undefined) holds.add(hold)
  }
  for (const { entry, mapping, planned, resources } of successions) {
    takeFrontend(mappings, entry, mapping)
    entry.resources = resources
    if (resources.hold !== undefined) holds.delete(resources.hold)
    if (planned === undefined) entry.status = nextStatus(entry.status, "conflict")
    else
      for (const [, why] of yield* relayAgain(context, { entry, planned }))
        yield* Effect.logWarning(
          `${frontendText(mapping)} can't be taken over yet, and is kept as conflicted: ${why}`
        )
  }
  yield* allocator.release([...holds])
  yield* reshare(context, others)
})

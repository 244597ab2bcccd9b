/**
 * Keeps the kernel's table and the record equal to the entries. Firewall reloads and `nft flush ruleset` remove the
 * table, and a change that failed may still have been made. Redirected connections continue meanwhile; new ones are
 * redirected again once the reconciler has repaired the table.
 */
import { Duration, Effect, Result } from "effect"
import { FirewallError } from "../../firewall/Firewall.ts"
import { sameBackend } from "../../protocol/PortBinding.ts"
import type { MapperContext } from "../MapperContext.ts"
import { recordEntries, recordedState, type Stored, type StoreError } from "../MappingStore.ts"
import { type Mapping, type MappingEntry, mappingKey } from "../model/Mapping.ts"
import { replaceTable } from "./Restore.ts"

/**
 * How often the table is checked; a check is one netlink request. Without the table a backend's packets reach the
 * client with the backend's own address, and the client resets the connection. A backend that misses an
 * acknowledgement retransmits after 200 ms at the earliest, so the table has to be back before.
 */
export const checkInterval = Duration.millis(100)

/** The effect to run at every interval: checks once, repairs what differs, and logs each repair once. */
export const reconciler = (context: MapperContext): Effect.Effect<void> => {
  const table = withBackoff(Effect.mapError(verifyTable(context), ({ message }) => message))
  const record = withBackoff(reconcileRecord(context))
  return context.mappings.lock.withPermit(Effect.andThen(table, record))
}

/** The most checks that are skipped before a failed repair is retried: about a second. */
const longestPause = 10

/** Retries a failing repair less and less often, and logs a repeated failure once. */
const withBackoff = (repair: Effect.Effect<void, string>): Effect.Effect<void> => {
  const state = { failures: 0, pause: 0, logged: "" }
  return Effect.suspend(() => {
    if (state.pause > 0) {
      state.pause--
      return Effect.void
    }
    return Effect.matchEffect(repair, {
      onFailure: (text) => {
        state.pause = Math.min(2 ** state.failures++ - 1, longestPause)
        if (state.logged === text) return Effect.void
        state.logged = text
        return Effect.logError(text)
      },
      onSuccess: () => {
        state.failures = 0
        state.logged = ""
        return Effect.void
      }
    })
  })
}

/** Makes sure that the table is as the entries say. The caller holds the lock, so no change is under way. */
export const verifyTable = Effect.fnUntraced(function* (
  context: MapperContext
): Effect.fn.Return<void, FirewallError> {
  const { firewall, mappings } = context
  const checked = yield* Effect.result(firewall.check)
  const found = Result.isFailure(checked) ? checked.failure : undefined
  const why =
    (found && foreignChanges[found.reason]) ??
    (mappings.dirty.table ? "a change of the table failed" : undefined)
  if (why === undefined) return found === undefined ? undefined : yield* found
  yield* Effect.mapError(
    replaceTable(context),
    ({ reason, operation, detail }) =>
      new FirewallError({ reason, operation: `${why}, and ${operation}`, detail })
  )
  yield* Effect.logWarning(`${why}; put back with ${mappings.size()} mappings`)
})

const foreignChanges: Partial<Record<FirewallError["reason"], string>> = {
  Gone: "someone removed the table",
  Changed: "someone changed the table"
}

const reconcileRecord = Effect.fnUntraced(function* (context: MapperContext): Effect.fn.Return<void, string> {
  const { dirty } = context.mappings
  yield* Effect.mapError(context.store.check, ({ message }) => message)
  if (!dirty.record) return
  yield* Effect.mapError(recordAll(context), (error) => `a change of the record failed, and ${error.message}`)
  dirty.record = false
  yield* Effect.logWarning("a change of the record failed; the record is repaired")
})

/**
 * Removes from the record what is not mapped, and records what is. The caller holds the lock, so no change is under
 * way.
 */
const recordAll = Effect.fnUntraced(function* ({
  mappings,
  store
}: MapperContext): Effect.fn.Return<void, StoreError> {
  const { mappings: stored } = yield* store.load
  const found = new Map(stored.map((one) => [mappingKey(one.mapping), one]))
  yield* store.remove(
    stored
      .filter(({ mapping }) => mappings.get(mappingKey(mapping)) === undefined)
      .map(({ mapping }) => mapping)
  )
  yield* recordEntries(
    store,
    [...mappings.all()].filter((entry) => !isRecorded(found.get(mappingKey(entry.mapping)), entry))
  )
  const { number: epoch, activated } = mappings.engine
  yield* store.putEngine({ epoch, activated })
})

const isRecorded = (found: Stored | undefined, { mapping, status }: MappingEntry): boolean =>
  found !== undefined &&
  found.state === recordedState(status) &&
  found.mapping.mode === mapping.mode &&
  found.mapping.requestedAddress === mapping.requestedAddress &&
  found.mapping.owner === mapping.owner &&
  found.mapping.epoch === mapping.epoch &&
  found.mapping.container === mapping.container &&
  sameBackend(found.mapping.backend, mapping.backend) &&
  found.mapping.drained === mapping.drained &&
  shareText(found.mapping) === shareText(mapping) &&
  labelsText(found.mapping) === labelsText(mapping)

const shareText = ({ share }: Mapping): string =>
  share === undefined ? "" : `${share.service} ${share.balance} ${share.size} ${share.slots.join()}`

const labelsText = ({ labels }: Mapping): string => JSON.stringify([...labels])

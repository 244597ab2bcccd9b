/**
 * Keeps the kernel's table and the record as what is mapped asks for. Firewall reloads and `nft flush ruleset` take the
 * table away under our feet, and a change that failed may have been made all the same. Connections that were redirected go
 * on meanwhile; new ones are led again as soon as it is noticed.
 */
import { Duration, Effect } from "effect"
import { flowsOfAdded, forgetFlows } from "../firewall/Conntrack.ts"
import type { FirewallError } from "../firewall/Firewall.ts"
import type { Host } from "./Host.ts"
import { type Mapping, mappingKey, sameBackend } from "./Mapping.ts"
import { recordedState, type Stored, type StoreError } from "./MappingStore.ts"

/**
 * How often the table is looked at; a look is one netlink request. Without the table a backend's packets reach the client
 * under the backend's own address, and the client resets the connection: a backend that misses an acknowledgement sends
 * again after 200 ms at the earliest, so the table has to be back before.
 */
export const checkInterval = Duration.millis(100)

/** What to run at every interval. Looks once, and puts right what is not as it should be, told once for each time. */
export const reconciler = (on: Host): Effect.Effect<void> => {
  const table = patiently(settleTable(on))
  const record = patiently(settleRecord(on))
  return on.mappings.lock.alone(Effect.andThen(table, record))
}

/** So many looks at most are passed over before a repair that failed is tried again: about a second. */
const longestPause = 10

/** A repair that fails again and again is tried ever less often, and what it fails by is told once. */
const patiently = (settle: Effect.Effect<void, string>): Effect.Effect<void> => {
  let failures = 0
  let pause = 0
  let told: string | undefined
  return Effect.suspend(() => {
    if (pause > 0) {
      pause--
      return Effect.void
    }
    return Effect.matchEffect(settle, {
      onFailure: (text) => {
        pause = Math.min(2 ** failures++ - 1, longestPause)
        if (told === text) return Effect.void
        told = text
        return Effect.logError(text)
      },
      onSuccess: () => {
        failures = 0
        told = undefined
        return Effect.void
      }
    })
  })
}

const settleTable = Effect.fnUntraced(function* (on: Host): Effect.fn.Return<void, string> {
  const { firewall, mappings } = on
  const gone = yield* Effect.as(firewall.check, false).pipe(
    Effect.catch((error) =>
      error.reason === "Gone" || mappings.doubts.table
        ? Effect.succeed(error.reason === "Gone")
        : Effect.fail(error.message)
    )
  )
  if (!gone && !mappings.doubts.table) return
  const why = gone ? "someone removed the table" : "a change of the table failed"
  yield* Effect.mapError(repair(on), (error) => `${why}, and ${error.message}`)
  yield* Effect.logWarning(`${why}; put back with ${mappings.size()} mappings`)
})

/** One atomic replacement by what is mapped; flows that went past it meanwhile are forgotten. The caller has the lock. */
export const repair = Effect.fnUntraced(function* ({
  mappings,
  firewall,
  conntrack
}: Host): Effect.fn.Return<void, FirewallError> {
  const rules = [...mappings.all()].flatMap((live) => live.rules)
  yield* firewall.replace(rules)
  yield* forgetFlows(conntrack, flowsOfAdded(rules))
})

const settleRecord = Effect.fnUntraced(function* (on: Host): Effect.fn.Return<void, string> {
  const { doubts } = on.mappings
  if (!doubts.record) return
  yield* Effect.mapError(recordAll(on), (error) => `a change of the record failed, and ${error.message}`)
  doubts.record = false
  yield* Effect.logWarning("a change of the record failed; it is as it should be again")
})

/** Forgets what is not mapped, and records what is; nothing is on its way while the caller has the lock. */
const recordAll = Effect.fnUntraced(function* ({
  mappings,
  store
}: Host): Effect.fn.Return<void, StoreError> {
  const { mappings: stored } = yield* store.load
  const found = new Map(stored.map((one) => [mappingKey(one.mapping), one]))
  yield* store.remove(
    stored
      .filter(({ mapping }) => mappings.get(mappingKey(mapping)) === undefined)
      .map(({ mapping }) => mapping)
  )
  const differing = [...mappings.all()].filter(
    (live) => !isRecorded(found.get(mappingKey(live.mapping)), live.mapping, recordedState(live))
  )
  for (const state of ["answered", "applied"] as const)
    yield* store.put(
      differing.filter((live) => recordedState(live) === state).map(({ mapping }) => mapping),
      state
    )
  const { number: epoch, activated } = mappings.engine
  yield* store.putEngine({ epoch, activated })
})

/** What is answered in the record stays so while a later answer is on its way. */
const isRecorded = (found: Stored | undefined, mapping: Mapping, state: Stored["state"]): boolean =>
  found !== undefined &&
  (found.state === state || (found.state === "answered" && state === "applied")) &&
  found.mapping.mode === mapping.mode &&
  found.mapping.asked === mapping.asked &&
  found.mapping.owner === mapping.owner &&
  found.mapping.epoch === mapping.epoch &&
  sameBackend(found.mapping.backend, mapping.backend) &&
  labelsText(found.mapping) === labelsText(mapping)

const labelsText = ({ labels }: Mapping): string => JSON.stringify([...labels])

/**
 * A mapping of an Engine belongs to a container, not to an address: addresses are reused within seconds, and an
 * Engine that could not unmap never does so later. Learns the container of each mapping once its answer is delivered,
 * never during a call, and withdraws the mappings whose container is gone.
 */
import { Cause, Effect, Queue, Result, type Scope } from "effect"
import { CurrentOwner } from "../protocol/Driver.ts"
import { release } from "./apply/Release.ts"
import {
  type Attributed,
  type Attribution,
  type Backends,
  logFailure,
  type MapperContext
} from "./MapperContext.ts"
import { recordEntries } from "./MappingStore.ts"
import { isPending, type MappingEntry, mappingKey, mappingText } from "./model/Mapping.ts"
import { changing, portsInCluster } from "./steps/PortScope.ts"

/** A container that starts, and a call for each of its ports, are one look at the containers. */
const pauseMillis = 250

/**
 * Looks whenever containers may have changed, as long as the scope is open. Returns what a call runs first: it has
 * the container looked for once the call's answer is settled.
 */
export const followContainers = Effect.fnUntraced(function* (
  context: MapperContext
): Effect.fn.Return<Effect.Effect<void, never, Scope.Scope>, never, Scope.Scope> {
  const { containers } = context.backends
  if (containers === undefined) return Effect.void
  const due = yield* Queue.sliding<void>(1)
  const lookAgain = Effect.asVoid(Queue.offer(due, undefined))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(containers.changed, lookAgain)))
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(Queue.take(due), Effect.andThen(Effect.sleep(pauseMillis), look(context, containers)))
    )
  )
  return Effect.flatMap(CurrentOwner, (owner) =>
    owner === "engine" ? Effect.addFinalizer(() => lookAgain) : Effect.void
  )
})

interface Looked extends Attributed {
  readonly entry: MappingEntry
}

/** Looks once; neither a failure nor a defect ends the next looks. */
const look = (
  context: MapperContext,
  { attribute }: NonNullable<Backends["Service"]["containers"]>
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { mappings } = context
    const looked: Array<Looked> = []
    for (const entry of mappings.all())
      if (entry.mapping.owner === "engine")
        looked.push({ entry, mapping: entry.mapping, askedMillis: entry.askedMillis })
    if (looked.length === 0) return
    const found = yield* attribute(looked)
    yield* changing(context, Effect.uninterruptible(settle(context, looked, found)))
  }).pipe(
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.failCause(cause)
        : Effect.logWarning(`looking for the containers of mappings: internal error: ${Cause.pretty(cause)}`)
    )
  )

/** The caller holds the lock. Skips what was mapped anew or unmapped since the look began. */
const settle = Effect.fnUntraced(function* (
  context: MapperContext,
  looked: ReadonlyArray<Looked>,
  found: ReadonlyArray<Attribution>
) {
  const learned: Array<MappingEntry> = []
  const gone: Array<Gone> = []
  for (const [index, { entry, mapping, askedMillis }] of looked.entries()) {
    const isSame =
      context.mappings.get(mappingKey(mapping)) === entry &&
      entry.askedMillis === askedMillis &&
      !isPending(entry)
    const one = found[index]
    if (!isSame || one === undefined) continue
    if (one._tag === "Gone") gone.push({ entry, id: one.id, why: one.why })
    if (one._tag !== "BelongsTo" || one.container === mapping.container) continue
    entry.mapping = { ...mapping, container: one.container }
    learned.push(entry)
  }
  yield* logFailure("recording the containers of mappings", recordEntries(context.store, learned))
  context.claims.describe(portsInCluster(context, learned))
  if (gone.length === 0) return
  const entries = gone.map(({ entry }) => entry)
  const released = yield* Effect.result(release(context, entries))
  const withdrawn = gone.filter(({ entry }) => entry.status._tag === "Gone")
  for (const [why, some] of Map.groupBy(withdrawn, (each) => each.why)) yield* logWithdrawn(why, some)
  if (Result.isFailure(released)) yield* Effect.logError(`withdrawing mappings: ${released.failure.message}`)
})

interface Gone {
  readonly entry: MappingEntry
  readonly id: string
  readonly why: string
}

/** The most mappings that one line of the log names. */
const mostNamed = 8

const logWithdrawn = (why: string, withdrawn: ReadonlyArray<Gone>) => {
  const named = withdrawn.slice(0, mostNamed).map(({ entry: { mapping } }) => mappingText(mapping))
  const rest = withdrawn.length - named.length
  const text = `withdrew ${named.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}: ${why}`
  return Effect.annotateLogs(Effect.logInfo(text), { event: "withdrawn", container: withdrawn[0]?.id })
}

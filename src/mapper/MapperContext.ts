/** The services of a mapper, looked up once. Its firewall and store set the dirty flags when they fail. */
import { Cause, Context, Effect, Layer } from "effect"
import { ByteCounter } from "../firewall/ByteCounter.ts"
import { Conntrack } from "../firewall/Conntrack.ts"
import { Firewall } from "../firewall/Firewall.ts"
import { PortAllocator } from "../ports/PortAllocator.ts"
import { PortClaims } from "../ports/PortClaims.ts"
import { containerLabel } from "../protocol/FollowLabels.ts"
import { Relay } from "../relay/Relay.ts"
import { MappingStore, recordEntries } from "./MappingStore.ts"
import { type DirtyFlags, type Mapping, type MappingEntry, Mappings } from "./model/Mapping.ts"
import type { Capabilities } from "./plan/Plan.ts"

/** The capabilities of the host and of this process; see `Capabilities`. */
export class MapperConfig extends Context.Service<MapperConfig, Capabilities>()(
  "portmapper/mapper/MapperConfig"
) {}

/** The sessions whose connections outlive the start of the mapper: those that a predecessor passed on in a takeover. */
export const LiveSessions = Context.Reference<ReadonlySet<string>>("portmapper/mapper/LiveSessions", {
  defaultValue: () => new Set()
})

export type BackendState = "running" | "gone" | "unknown"

/** A mapping whose container is wanted, and when a call asked for it last. */
export interface Attributed {
  readonly mapping: Mapping
  readonly askedMillis: number
}

/**
 * `BelongsTo`: this container has the backend. `Gone`: the container that the mapping belonged to has it no longer;
 * `id` is its id, and `why` a sentence about it. `Doubtful`: anything else.
 */
export type Attribution =
  | { readonly _tag: "BelongsTo"; readonly container: string }
  | { readonly _tag: "Gone"; readonly id: string; readonly why: string }
  | { readonly _tag: "Doubtful" }

/** The containers behind the backend addresses, as far as something on this host knows them. */
export class Backends extends Context.Service<
  Backends,
  {
    /**
     * Asked in the middle of a call, to settle a conflict between two mappings. `gone` only where it is certain that
     * the container which the mapping was made for has this address no longer; never fails.
     */
    readonly stateOf: (mapping: Pick<Mapping, "backend" | "container">) => Effect.Effect<BackendState>
    /** Asked between the calls: see `Containers`. Absent where containers are unknown. */
    readonly containers?: {
      /** Returns when a container may have come, gone or moved; the first time when containers can be seen. */
      readonly changed: Effect.Effect<void>
      /** In the order of the mappings. MUST return `Gone` only where it is certain; never fails. */
      readonly attribute: (mappings: ReadonlyArray<Attributed>) => Effect.Effect<ReadonlyArray<Attribution>>
      /** A container as `ListedMapping.container` has it, given as `Mapping.container` has it. */
      readonly textOf: (container: string) => string
    }
  }
>()("portmapper/mapper/Backends") {
  /** For hosts where the state of containers is unknown. */
  static readonly layerUnknown = Layer.succeed(Backends, { stateOf: () => Effect.succeed("unknown") })

  /** Containers at the addresses with these keys are gone; all others run. */
  static readonly layerMemory = (gone: ReadonlySet<string>) =>
    Layer.succeed(Backends, {
      stateOf: ({ backend }) => Effect.sync(() => (gone.has(backend.address.key) ? "gone" : "running"))
    })
}

export type MapperServices =
  | MapperConfig
  | Mappings
  | PortAllocator
  | Firewall
  | Conntrack
  | ByteCounter
  | Relay
  | MappingStore
  | Backends

export interface MapperContext {
  readonly capabilities: Capabilities
  readonly mappings: Mappings["Service"]
  readonly allocator: PortAllocator["Service"]
  readonly claims: PortClaims
  readonly firewall: Firewall["Service"]
  readonly conntrack: Conntrack["Service"]
  readonly byteCounter: ByteCounter["Service"]
  readonly relay: Relay["Service"]
  readonly store: MappingStore["Service"]
  readonly backends: Backends["Service"]
}

export const mapperContext: Effect.Effect<MapperContext, never, MapperServices> = Effect.contextWith(
  (services: Context.Context<MapperServices>) => {
    const mappings = Context.get(services, Mappings)
    return Effect.succeed({
      capabilities: Context.get(services, MapperConfig),
      mappings,
      allocator: Context.get(services, PortAllocator),
      claims: Context.get(services, PortClaims),
      firewall: flaggedFirewall(Context.get(services, Firewall), mappings.dirty),
      conntrack: Context.get(services, Conntrack),
      byteCounter: Context.get(services, ByteCounter),
      relay: Context.get(services, Relay),
      store: flaggedStore(Context.get(services, MappingStore), mappings.dirty),
      backends: Context.get(services, Backends)
    })
  }
)

/** `NAME/ID`, or `ID`. As the Engine knows it; what `watch` mapped has it among its labels. */
export const containerOf = (
  { labels, container }: Pick<Mapping, "labels" | "container">,
  { containers }: MapperContext["backends"]
): string | undefined =>
  (container === undefined ? undefined : containers?.textOf(container)) ?? labels.get(containerLabel)

/** Logs the failure of a step of an undo or a teardown, which then continues. */
export const logFailure = <E extends { readonly message: string }>(
  what: string,
  effect: Effect.Effect<void, E>
): Effect.Effect<void> => Effect.catch(effect, (error) => Effect.logError(`${what}: ${error.message}`))

/**
 * Records again the entries that are kept: a call may answer with them in a moment, and a kill after that must find
 * them.
 */
export const recordAgain = (
  { store }: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): Effect.Effect<void> => logFailure("recording again what is kept", again(recordEntries(store, entries), 3))

/** Retries at once, at most `times` times. */
const again = <A, E>(attempt: Effect.Effect<A, E>, times: number): Effect.Effect<A, E> =>
  times === 0 ? attempt : Effect.catch(attempt, () => again(attempt, times - 1))

/**
 * The relay works on another thread, so each change of a route waits for its reply; it still makes them in order. What
 * was begun is finished, even where another one fails.
 */
export const eachRoute = <A, B, E>(
  all: ReadonlyArray<A>,
  change: (one: A) => Effect.Effect<B, E>
): Effect.Effect<ReadonlyArray<B>, E> =>
  Effect.forEach(all, (one) => Effect.uninterruptible(change(one)), { concurrency: 256 })

/** A change that fails may still have been made. */
const flaggedFirewall = (firewall: Firewall["Service"], dirty: DirtyFlags): Firewall["Service"] => {
  const flag = raising(dirty, "table")
  return {
    ...firewall,
    apply: (change) => Effect.catchCause(firewall.apply(change), flag),
    replace: (rules) =>
      Effect.map(Effect.catchCause(firewall.replace(rules), flag), (removed) => {
        // The mapper replaces the table by the rules of all entries.
        dirty.table = false
        return removed
      })
  }
}

const flaggedStore = (store: MappingStore["Service"], dirty: DirtyFlags): MappingStore["Service"] => {
  const flag = raising(dirty, "record")
  return {
    ...store,
    put: (records) => Effect.catchCause(store.put(records), flag),
    remove: (mappings, instead) => Effect.catchCause(store.remove(mappings, instead), flag),
    putEngine: (engine) => Effect.catchCause(store.putEngine(engine), flag)
  }
}

/** Sets the flag on failure, and fails with the same error. */
const raising =
  (dirty: DirtyFlags, flag: keyof DirtyFlags) =>
  <E>(cause: Cause.Cause<E>): Effect.Effect<never, E> => {
    if (Cause.hasFails(cause)) dirty[flag] = true
    return Effect.failCause(cause)
  }

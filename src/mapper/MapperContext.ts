/** The services that a mapper stands on, looked up once; its firewall and store raise the dirty flags where they fail. */
import { Cause, Context, Effect, Layer } from "effect"
import { ByteCounter } from "../firewall/ByteCounter.ts"
import { Conntrack } from "../firewall/Conntrack.ts"
import { Firewall } from "../firewall/Firewall.ts"
import { PortAllocator } from "../ports/PortAllocator.ts"
import type { Endpoint } from "../protocol/PortBinding.ts"
import { Relay } from "../relay/Relay.ts"
import { type DirtyFlags, Mappings } from "./Mapping.ts"
import { MappingStore } from "./MappingStore.ts"
import type { Capabilities } from "./Plan.ts"

/** What the mapper knows of its host; see `Capabilities`. */
export class MapperConfig extends Context.Service<MapperConfig, Capabilities>()(
  "portmapper/mapper/MapperConfig"
) {}

export type BackendState = "running" | "gone" | "unknown"

/** Whether the container behind a backend address is still there, for settling a conflict between two mappings. */
export class Backends extends Context.Service<
  Backends,
  {
    /** `gone` only where it is certain that nothing runs at this address any more; never fails. */
    readonly stateOf: (backend: Endpoint) => Effect.Effect<BackendState>
  }
>()("portmapper/mapper/Backends") {
  /** Where nothing is known of containers. */
  static readonly layerUnknown = Layer.succeed(Backends, { stateOf: () => Effect.succeed("unknown") })

  /** Containers at the addresses with these keys are gone; all others run. */
  static readonly layerMemory = (gone: ReadonlySet<string>) =>
    Layer.succeed(Backends, {
      stateOf: ({ address }) => Effect.sync(() => (gone.has(address.key) ? "gone" : "running"))
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
      firewall: flaggedFirewall(Context.get(services, Firewall), mappings.dirty),
      conntrack: Context.get(services, Conntrack),
      byteCounter: Context.get(services, ByteCounter),
      relay: Context.get(services, Relay),
      store: flaggedStore(Context.get(services, MappingStore), mappings.dirty),
      backends: Context.get(services, Backends)
    })
  }
)

/** For an undoing, or a teardown, that carries on past what it can't do. */
export const logFailure = <E extends { readonly message: string }>(
  what: string,
  effect: Effect.Effect<void, E>
): Effect.Effect<void> => Effect.catch(effect, (error) => Effect.logError(`${what}: ${error.message}`))

/** A change that fails may have been made all the same. */
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
    remove: (mappings) => Effect.catchCause(store.remove(mappings), flag),
    putEngine: (engine) => Effect.catchCause(store.putEngine(engine), flag)
  }
}

/** Fails as before. */
const raising =
  (dirty: DirtyFlags, flag: keyof DirtyFlags) =>
  <E>(cause: Cause.Cause<E>): Effect.Effect<never, E> => {
    if (Cause.hasFails(cause)) dirty[flag] = true
    return Effect.failCause(cause)
  }

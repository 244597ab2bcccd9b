/** Everything a mapper stands on, looked up once. */
import { Context, Effect } from "effect"
import { ByteCounter } from "../firewall/ByteCounter.ts"
import { Conntrack } from "../firewall/Conntrack.ts"
import { Firewall } from "../firewall/Firewall.ts"
import { PortAllocator } from "../ports/PortAllocator.ts"
import { Relay } from "../relay/Relay.ts"
import { Backends } from "./Backends.ts"
import { doubtingRecord, doubtingTable } from "./Doubts.ts"
import { Mappings } from "./Mapping.ts"
import { MappingStore } from "./MappingStore.ts"
import type { Capabilities } from "./Plan.ts"

/** What the mapper knows of its host; see `Capabilities`. */
export class MapperConfig extends Context.Service<MapperConfig, Capabilities>()(
  "portmapper/mapper/MapperConfig"
) {}

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

export interface Host {
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

/** Its `firewall` and `store` note what they leave in doubt. */
export const host: Effect.Effect<Host, never, MapperServices> = Effect.contextWith(
  (services: Context.Context<MapperServices>) => {
    const mappings = Context.get(services, Mappings)
    return Effect.succeed({
      capabilities: Context.get(services, MapperConfig),
      mappings,
      allocator: Context.get(services, PortAllocator),
      firewall: doubtingTable(Context.get(services, Firewall), mappings.doubts),
      conntrack: Context.get(services, Conntrack),
      byteCounter: Context.get(services, ByteCounter),
      relay: Context.get(services, Relay),
      store: doubtingRecord(Context.get(services, MappingStore), mappings.doubts),
      backends: Context.get(services, Backends)
    })
  }
)

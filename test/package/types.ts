/** The guarantees of the entries' types; compiled against the sources and against the package, never run. */
import type { Effect, Layer, Scope } from "effect"
import {
  type Backends,
  type ByteCounter,
  type Conntrack,
  Driver,
  type DriverError,
  type Firewall,
  type Group,
  type HostSockets,
  type MapperConfig,
  type MappingStore,
  type Mappings,
  type PortAllocator,
  type PortBinding,
  PortMapper,
  type Relay
} from "portmapper"
import { toWebHandler, type WebHandler } from "portmapper/fetch"
import { type HostOptions, hostLayer } from "portmapper/host"
import { LinuxByteCounter, LinuxConntrack, LinuxRelay, LinuxSockets, NftFirewall } from "portmapper/linux"
import { SqliteMappingStore } from "portmapper/node"
import type { StdioServer } from "portmapper/stdio"

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const holds = <_ extends true>() => {}

declare const effect: {
  readonly granted: Effect.Effect<ReadonlyArray<PortBinding>>
  readonly none: Effect.Effect<void>
}

// A driver is two functions; the rest may be left out, and each failure has a tag and a message.
const driver = Driver.of({ mapPorts: () => effect.granted, unmapPorts: () => effect.none })
// @ts-expect-error A driver that maps also unmaps.
Driver.of({ mapPorts: () => effect.granted })
// @ts-expect-error An answer has bindings.
Driver.of({ mapPorts: () => effect.none, unmapPorts: () => effect.none })

type MapPorts = Driver["Service"]["mapPorts"]
holds<Same<Parameters<MapPorts>, [group: Group]>>()
holds<Same<ReturnType<MapPorts>, Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Scope.Scope>>>()

holds<Same<ReturnType<typeof toWebHandler>, WebHandler>>()
toWebHandler(driver)
toWebHandler(PortMapper.layerMemory())
// @ts-expect-error A layer of something else is no driver.
toWebHandler(LinuxSockets.layer())

// A session needs only a driver.
type Session = ReturnType<typeof StdioServer.serve>
holds<Same<Session extends Effect.Effect<void, infer _, infer R> ? R : never, Driver>>()

// The embedded mapper needs only a folder.
holds<Same<ReturnType<typeof hostLayer>, Layer.Layer<Driver, DriverError>>>()
holds<Same<{ readonly stateDirectory: string } extends HostOptions ? true : false, true>>()
// @ts-expect-error The folder for its record is required.
hostLayer({})

// The services of the built-in mapper are all available: the entries export each, with a layer for this host.
type Needed = typeof PortMapper.layer extends Layer.Layer<infer _, infer __, infer R> ? R : never
type Known =
  | Backends
  | Mappings
  | PortAllocator
  | HostSockets
  | Firewall
  | Conntrack
  | ByteCounter
  | Relay
  | MappingStore
  | MapperConfig
holds<Same<Exclude<Needed, Known>, never>>()
const sockets: Layer.Layer<HostSockets> = LinuxSockets.layer()
const firewall: Layer.Layer<Firewall, DriverError> = NftFirewall.layer()
const conntrack: Layer.Layer<Conntrack, DriverError, Firewall> = LinuxConntrack.layer
const counter: Layer.Layer<ByteCounter, DriverError> = LinuxByteCounter.layer
const relay: Layer.Layer<Relay, never, HostSockets> = LinuxRelay.layer()
const store: Layer.Layer<MappingStore, DriverError> = SqliteMappingStore.layer("state")
void [sockets, firewall, conntrack, counter, relay, store]

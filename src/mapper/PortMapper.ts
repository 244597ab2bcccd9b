/**
 * The built-in port mapper as a driver: `mapPorts`, `unmapPorts` and the list of what is mapped, over the services that
 * this host provides.
 */
import { Clock, Context, Effect, Layer } from "effect"
import { Conntrack } from "../firewall/Conntrack.ts"
import { Firewall } from "../firewall/Firewall.ts"
import { PortAllocator } from "../ports/PortAllocator.ts"
import { Driver, type ListedMapping } from "../protocol/Driver.ts"
import { protocolNumber } from "../protocol/Protocol.ts"
import { Relay } from "../relay/Relay.ts"
import { Backends } from "./Backends.ts"
import { MapperConfig, type MapperServices, mapPorts } from "./MapPorts.ts"
import { type EngineEpoch, frontendKey, isStale, type Live, Mappings } from "./Mapping.ts"
import { MappingStore } from "./MappingStore.ts"
import type { Capabilities } from "./Plan.ts"
import { restore } from "./Restore.ts"
import { unmapPorts } from "./UnmapPorts.ts"

/** Restores what was mapped before, then serves. */
export const PortMapper = {
  layer: Layer.effect(
    Driver,
    Effect.gen(function* () {
      const services = pickServices(yield* Effect.context<MapperServices>())
      yield* restore
      return Driver.of({
        mapPorts: (group) => Effect.provideContext(mapPorts(group), services),
        unmapPorts: (release) => Effect.provideContext(unmapPorts(release), services),
        listPorts: Effect.provideContext(listPorts, services),
        activated: Effect.provideContext(noticeActivation, services)
      })
    })
  ),

  /** Everything in memory: deterministic, for tests and for trying things out. `Memory*` services control it. */
  layerMemory: (
    capabilities: Partial<Capabilities> = {},
    backends: Layer.Layer<Backends> = Backends.layerUnknown
  ) =>
    PortMapper.layer.pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          Mappings.layer,
          PortAllocator.layerMemory,
          Firewall.layerMemory,
          Conntrack.layerMemory,
          Relay.layerMemory,
          MappingStore.layerMemory,
          backends,
          Layer.succeed(MapperConfig, { ...memoryCapabilities, ...capabilities })
        )
      )
    )
}

/** Exactly these: what else the building context holds (a scope, references) is the caller's to set for each call. */
const pickServices = Context.pick(
  MapperConfig,
  Mappings,
  PortAllocator,
  Firewall,
  Conntrack,
  Relay,
  MappingStore,
  Backends
)

const memoryCapabilities: Capabilities = {
  defaultMode: "nat",
  natUnavailable: undefined,
  marksAccepted: false,
  relayed: ["tcp", "udp"]
}

/** Recorded, since an Engine does not say it again to a plugin that was killed before the first `MapPorts`. */
const noticeActivation = Effect.gen(function* () {
  const { engine } = yield* Mappings
  if (engine.activated) return
  engine.activated = true
  const store = yield* MappingStore
  yield* Effect.catch(store.putEngine({ epoch: engine.number, activated: true }), (error) =>
    Effect.logWarning(`an Engine's start was noticed, but not recorded: ${error.message}`)
  )
})

const listPorts = Effect.gen(function* () {
  const mappings = yield* Mappings
  const firewall = yield* Firewall
  const relay = yield* Relay
  const now = yield* Clock.currentTimeMillis
  const { counted } = yield* firewall.read
  const redirected = new Map(
    counted.map(({ rule, connections }) => [frontendKey(rule.protocol, rule.host, rule.port), connections])
  )
  const relayed = new Map(
    (yield* relay.counted).map((count) => [frontendKey(count.protocol, count.host, count.port), count])
  )
  return [...mappings.all()].map((live): ListedMapping => {
    const { protocol, host, port, backend, asked, mode, owner, sinceMillis, labels } = live.mapping
    const key = frontendKey(protocol, host, port)
    const userland = relayed.get(key)
    return {
      protocol: protocolNumber[protocol],
      frontendIp: asked === "" ? host.text : asked,
      frontendPort: port,
      backendIp: backend.address.text,
      backendPort: backend.port,
      mode,
      owner,
      state: stateOf(live, mappings.engine, now),
      sinceMillis,
      labels,
      connections: mode === "routed" ? undefined : (redirected.get(key) ?? 0) + (userland?.connections ?? 0),
      bytesIn: mode === "proxy" ? userland?.bytesIn : undefined,
      bytesOut: mode === "proxy" ? userland?.bytesOut : undefined
    }
  })
})

const stateOf = (live: Live, engine: EngineEpoch, nowMillis: number): ListedMapping["state"] => {
  if (live.standing === "conflicted" || live.standing === "unconfirmed") return live.standing
  return isStale(live, engine, nowMillis) ? "stale" : "live"
}

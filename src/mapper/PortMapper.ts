/**
 * The built-in port mapper as a driver: `mapPorts`, `unmapPorts` and the list of what is mapped, over the services that
 * this host provides.
 */
import { Clock, type Duration, Effect, Layer } from "effect"
import { ByteCounter, type Bytes } from "../firewall/ByteCounter.ts"
import { Conntrack } from "../firewall/Conntrack.ts"
import { Firewall, type Rule } from "../firewall/Firewall.ts"
import { HostSockets } from "../ports/HostSockets.ts"
import { PortAllocator, type PortAllocatorOptions } from "../ports/PortAllocator.ts"
import { CurrentOwner, Driver, type ListedMapping, ListedOwner } from "../protocol/Driver.ts"
import { protocolNumber } from "../protocol/Protocol.ts"
import { Relay, type RelayCount } from "../relay/Relay.ts"
import { Backends } from "./Backends.ts"
import { type Host, host, MapperConfig } from "./Host.ts"
import { mapGroupsOn, mapPortsOn } from "./MapPorts.ts"
import { type EngineEpoch, frontendKey, isStale, type Live, Mappings } from "./Mapping.ts"
import { MappingStore } from "./MappingStore.ts"
import type { Capabilities } from "./Plan.ts"
import { checkInterval, reconciler } from "./Reconcile.ts"
import { recoverConflicted, recoverInterval } from "./Recover.ts"
import { type Restored, restore } from "./Restore.ts"
import { unmapPortsOn } from "./UnmapPorts.ts"

/** Restores what was mapped before, then serves, and keeps the kernel's table in place meanwhile. */
export const PortMapper = {
  layer: Layer.effect(
    Driver,
    Effect.gen(function* () {
      const on = yield* host
      yield* tellRestored(yield* restore)
      yield* Effect.forkScoped(every(checkInterval, reconciler(on)))
      yield* Effect.forkScoped(every(recoverInterval, recoverConflicted(on)))
      return Driver.of({
        mapPorts: (group) => mapPortsOn(on, group),
        mapGroups: (groups) => mapGroupsOn(on, groups),
        unmapPorts: (release) => unmapPortsOn(on, release),
        listPorts: Effect.flatMap(ListedOwner, (owner) =>
          owner === undefined ? listPorts(on) : listOwned(on, owner)
        ),
        activated: noticeActivation(on)
      })
    })
  ),

  /** Everything in memory: deterministic, for tests and for trying things out. `Memory*` services control it. */
  layerMemory: (
    capabilities: Partial<Capabilities> = {},
    backends: Layer.Layer<Backends> = Backends.layerUnknown,
    ports: PortAllocatorOptions = {}
  ) =>
    PortMapper.layer.pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          Mappings.layer,
          PortAllocator.layer(ports).pipe(Layer.provideMerge(HostSockets.layerMemory)),
          Firewall.layerMemory,
          Conntrack.layerMemory,
          ByteCounter.layerMemory,
          Relay.layerMemory,
          MappingStore.layerMemory,
          backends,
          Layer.succeed(MapperConfig, { ...memoryCapabilities, ...capabilities })
        )
      )
    )
}

const memoryCapabilities: Capabilities = {
  defaultMode: "nat",
  natUnavailable: undefined,
  marksAccepted: false,
  relayed: ["tcp", "udp"]
}

const tellRestored = ({ live, unconfirmed, conflicted, undone, lost }: Restored) =>
  live + unconfirmed + conflicted.length + undone === 0 && lost === undefined
    ? Effect.void
    : Effect.logInfo(
        `restored ${live} mappings, ${unconfirmed} unconfirmed, ${conflicted.length} conflicted; undid ${undone}${
          lost === undefined
            ? ""
            : `; the record could not be used (${lost.why}), and is kept as ${lost.path}`
        }`
      )

const every = <A, E, R>(interval: Duration.Duration, look: Effect.Effect<A, E, R>) =>
  Effect.forever(Effect.andThen(Effect.sleep(interval), look))

/** Recorded, since an Engine does not say it again to a plugin that was killed before the first `MapPorts`. */
const noticeActivation = Effect.fnUntraced(function* ({ mappings: { engine }, store }: Host) {
  if (engine.activated || (yield* CurrentOwner) !== "engine") return
  engine.activated = true
  yield* Effect.catch(store.putEngine({ epoch: engine.number, activated: true }), (error) =>
    Effect.logWarning(`an Engine's start was noticed, but not recorded: ${error.message}`)
  )
})

const listPorts = Effect.fnUntraced(function* ({ mappings, firewall, relay, byteCounter }: Host) {
  const now = yield* Clock.currentTimeMillis
  // Where the table was taken away there is nothing to count, and it is about to be put back.
  const { counted } = yield* Effect.catch(firewall.read, () => Effect.succeed({ counted: [] }))
  const redirected = new Map(
    counted.map((count) => [frontendKey(count.rule.protocol, count.rule.host, count.rule.port), count])
  )
  const relayed = new Map(
    (yield* relay.counted).map((count) => [frontendKey(count.protocol, count.host, count.port), count])
  )
  const lives = [...mappings.all()]
  const rules = lives.flatMap((live) => live.rules).filter((rule) => rule._tag === "Redirect")
  const sums = yield* byteCounter.read(rules)
  const carried = new Map(rules.map((rule, index) => [rule, sums[index]]))
  return lives.map((live): ListedMapping => {
    const { protocol, host, port, mode } = live.mapping
    const key = frontendKey(protocol, host, port)
    const kernel = redirected.get(key)
    const userland = relayed.get(key)
    const bytes = bytesOf(live, carried, userland)
    return {
      ...uncounted(live, mappings.engine, now),
      connections: mode === "routed" ? undefined : (kernel?.connections ?? 0) + (userland?.connections ?? 0),
      bytesIn: bytes?.in,
      bytesOut: bytes?.out,
      refused: isLimited(live) ? (kernel?.dropped ?? 0) + (userland?.refused ?? 0) : undefined
    }
  })
})

const isLimited = ({ rules, route }: Live): boolean =>
  route?.allow !== undefined || rules.some((rule) => rule._tag !== "Guard" && rule.allow !== undefined)

/** Of all that leads its traffic: `undefined` where some of that does not count. */
const bytesOf = (
  { rules, route }: Live,
  carried: ReadonlyMap<Rule, Bytes | undefined>,
  userland: RelayCount | undefined
): Bytes | undefined => {
  const relayed = { in: userland?.bytesIn ?? 0, out: userland?.bytesOut ?? 0 }
  const redirect = rules.find(({ _tag }) => _tag === "Redirect")
  if (redirect === undefined) return route?.admits === "everything" ? relayed : undefined
  const kernel = carried.get(redirect)
  return kernel && { in: kernel.in + relayed.in, out: kernel.out + relayed.out }
}

/** Nothing is asked of the kernel or the relay: the cost is that of a look at each mapping, whatever they count. */
const listOwned = Effect.fnUntraced(function* ({ mappings }: Host, owner: string) {
  const now = yield* Clock.currentTimeMillis
  const owned: Array<ListedMapping> = []
  for (const live of mappings.all())
    if (live.mapping.owner === owner) owned.push(uncounted(live, mappings.engine, now))
  return owned
})

const uncounted = (live: Live, engine: EngineEpoch, nowMillis: number): ListedMapping => {
  const { protocol, host, port, backend, asked, mode, owner, sinceMillis, labels } = live.mapping
  return {
    protocol: protocolNumber[protocol],
    frontendIp: asked === "" ? host.text : asked,
    frontendPort: port,
    backendIp: backend.address.text,
    backendPort: backend.port,
    mode,
    owner,
    state: stateOf(live, engine, nowMillis),
    sinceMillis,
    labels,
    connections: undefined,
    bytesIn: undefined,
    bytesOut: undefined
  }
}

const stateOf = (live: Live, engine: EngineEpoch, nowMillis: number): ListedMapping["state"] => {
  if (live.standing === "conflicted" || live.standing === "unconfirmed") return live.standing
  return isStale(live, engine, nowMillis) ? "stale" : "live"
}

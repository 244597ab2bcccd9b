/** Hosts of one cluster in memory, each with the production mapper, which can be killed, stopped and replaced. */
import { it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Cluster, type ClusterPortsOptions, clusterPorts } from "../../src/cluster/ClusterPorts.ts"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { Etcd } from "../../src/cluster/Etcd.ts"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { ByteCounter } from "../../src/firewall/ByteCounter.ts"
import { Conntrack } from "../../src/firewall/Conntrack.ts"
import { Firewall, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { Backends, MapperConfig } from "../../src/mapper/MapperContext.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { Mappings } from "../../src/mapper/model/Mapping.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { HostSockets, MemoryHost } from "../../src/ports/HostSockets.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import { CurrentOwner, Driver, type ListedMapping, ListedScope } from "../../src/protocol/Driver.ts"
import type { Group, PortBinding } from "../../src/protocol/PortBinding.ts"
import type { PortRange } from "../../src/protocol/PortRange.ts"
import { Relay } from "../../src/relay/Relay.ts"
import { releaseOf } from "../support/groups.ts"

export interface HostOptions {
  readonly identity?: string
  readonly ttl?: Duration.Duration
  readonly absence?: Duration.Duration
  readonly ephemeral?: PortRange
  /** Where ports are unique whose labels don't say. */
  readonly scope?: "cluster" | "host"
  /** By default, containers are unknown. */
  readonly backends?: Backends["Service"]
}

type Kernel = Layer.Success<typeof kernelLayer>
const kernelLayer = Layer.mergeAll(
  HostSockets.layerMemory,
  Firewall.layerMemory,
  Conntrack.layerMemory,
  ByteCounter.layerMemory,
  MappingStore.layerMemory,
  Backends.layerUnknown
)

export interface Host {
  readonly name: string
  /** The ports of the answer. */
  readonly map: (asked: Group, owner?: string) => Effect.Effect<ReadonlyArray<PortBinding>, unknown>
  /** Several groups, all or none. */
  readonly mapAll: (asked: ReadonlyArray<Group>) => Effect.Effect<unknown, unknown>
  readonly refused: (asked: Group) => Effect.Effect<string>
  readonly unmap: (bindings: ReadonlyArray<PortBinding>) => Effect.Effect<void, unknown>
  /** `0.0.0.0:8080/tcp live`, sorted; of a mapping in conflict also who has its port. */
  readonly listed: Effect.Effect<ReadonlyArray<string>>
  /** What all hosts have, as this one knows it. */
  readonly listedOfAll: Effect.Effect<ReadonlyArray<ListedMapping>>
  readonly rules: Effect.Effect<ReadonlyArray<string>>
  readonly kernel: Context.Context<Kernel>
  readonly cluster: () => Cluster["Service"]
  /** Ends this life as a kill does: nothing is said to the cluster. */
  readonly kill: Effect.Effect<void>
  readonly stop: (ending: ReturnType<ClusterPortsOptions["ending"]>) => Effect.Effect<void>
  readonly start: Effect.Effect<void>
}

const capabilities = {
  defaultMode: "nat",
  natUnavailable: undefined,
  marksAccepted: false,
  ipv6: true,
  relayed: ["tcp", "udp"]
} as const

/** A host that has started. */
export const makeHost = Effect.fnUntraced(function* (
  name: string,
  options: HostOptions = {}
): Effect.fn.Return<Host, never, MemoryEtcd | Scope.Scope> {
  const etcd = yield* MemoryEtcd
  const scope = yield* Scope.Scope
  const { ephemeral = { first: 32768, last: 60999 }, backends } = options
  const built = yield* Layer.build(Layer.fresh(kernelLayer))
  const kernel = backends === undefined ? built : Context.add(built, Backends, backends)
  Context.get(kernel, MemoryHost).setEphemeral({ range: ephemeral, reserved: [] })
  let ending: ReturnType<ClusterPortsOptions["ending"]> = "leave"
  const ports = clusterPorts({
    ...{ host: name, identity: options.identity ?? name, address: undefined, ephemeral },
    ttl: options.ttl ?? Duration.seconds(30),
    absence: options.absence ?? Duration.minutes(10),
    ending: () => ending
  }).pipe(
    Layer.provide(PortAllocator.layer({ ephemeral })),
    Layer.provide(ClusterStore.layer({ name: "default" })),
    Layer.provide(Layer.succeed(Etcd, etcd.connection(name)))
  )
  const life = PortMapper.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(
        Mappings.layer,
        ports,
        Relay.layerMemory,
        Layer.succeed(MapperConfig, { ...capabilities, scope: options.scope ?? "cluster" })
      )
    ),
    Layer.provide(Layer.succeedContext(kernel)),
    Layer.fresh
  )
  let current: { readonly scope: Scope.Closeable; readonly services: Context.Context<Driver | Cluster> }
  const start = Effect.gen(function* () {
    const own = yield* Scope.fork(scope)
    ending = "leave"
    current = { scope: own, services: yield* Effect.orDie(Layer.buildWithScope(life, own)) }
  })
  const stop = (how: typeof ending) =>
    Effect.gen(function* () {
      ending = how
      yield* Scope.close(current.scope, Exit.void)
      const sockets = Context.get(kernel, HostSockets)
      for (const socket of yield* sockets.held) yield* sockets.close(socket)
    })
  yield* start
  const driver = () => Context.get(current.services, Driver)
  const map = (asked: Group, owner = "engine") =>
    Effect.scoped(
      Effect.provideService(
        Effect.suspend(() => driver().mapPorts(asked)),
        CurrentOwner,
        owner
      )
    )
  return {
    name,
    map,
    mapAll: (asked) =>
      Effect.scoped(Effect.suspend(() => driver().mapGroups?.(asked) ?? Effect.die("no mapGroups"))),
    refused: (asked) =>
      Effect.map(
        Effect.orDie(Effect.flip(map(asked))),
        (error) => (error as { readonly message: string }).message
      ),
    unmap: (bindings) => Effect.suspend(() => driver().unmapPorts(releaseOf(bindings))),
    listed: Effect.suspend(() =>
      Effect.map(Effect.orDie(driver().listPorts ?? Effect.succeed([])), (listed) =>
        listed
          .map(
            ({ frontendIp, frontendPort, state, reason }) =>
              `${frontendIp}:${frontendPort} ${state}${reason === undefined ? "" : `, ${reason}`}`
          )
          .sort()
      )
    ),
    listedOfAll: Effect.suspend(() =>
      Effect.provideService(
        Effect.orDie(driver().listPorts ?? Effect.succeed([])),
        ListedScope,
        "cluster" as const
      )
    ),
    rules: Effect.sync(() => Context.get(kernel, MemoryFirewall).rules()),
    kernel,
    cluster: () => Context.get(current.services, Cluster),
    kill: stop("stay"),
    stop,
    start: Effect.suspend(() => start)
  }
})

export const web = "tcp 0.0.0.0 172.17.0.2:80"
export const other = "tcp 0.0.0.0 172.17.0.3:80"

export const testHosts = (title: string, body: Effect.Effect<void, unknown, MemoryEtcd | Scope.Scope>) =>
  it.effect(title, () => Effect.provide(Effect.scoped(body), MemoryEtcd.layer))

export const two = Effect.gen(function* () {
  const hosts = [yield* makeHost("a"), yield* makeHost("b")] as const
  yield* TestClock.adjust("1 second")
  return hosts
})

/** What hosts have claimed: `a tcp 8080`, `a block 40000-40003`. */
export const claimed = Effect.map(MemoryEtcd, (etcd) =>
  etcd
    .entries()
    .filter(([key]) => key.includes("/cells/"))
    .map(([key]) => {
      const [kind, port, host] = (key.split("/").at(-1) ?? "").split(".")
      return `${host} ${kind} ${port}`
    })
)

/** The writes to etcd that an effect takes. */
export const writesOf = <A, E, R>(host: Host, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = (yield* host.cluster().status).counts.writes
    yield* effect
    return (yield* host.cluster().status).counts.writes - before
  })

export const refusedBy = (holder: string, port = "0.0.0.0:8080/tcp") =>
  `bind for ${port} failed: port is already allocated (${holder})`

/** Fails where it takes longer by the test's clock. */
export const within = <A, E, R>(millis: number, effect: Effect.Effect<A, E, R>) =>
  Effect.raceFirst(effect, Effect.andThen(TestClock.adjust(Duration.millis(millis)), Effect.never))

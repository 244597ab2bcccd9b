/**
 * The one place that chooses host adapters: the process's privileges decide the mode, and the mode decides the rest.
 */
import { Context, type Duration, Effect, Layer, Result, Schema } from "effect"
import type { Cluster } from "../../src/cluster/ClusterPorts.ts"
import { ByteCounter } from "../../src/firewall/ByteCounter.ts"
import { Conntrack } from "../../src/firewall/Conntrack.ts"
import { Firewall, type Guard } from "../../src/firewall/Firewall.ts"
import { OwnPorts, withOwnPorts } from "../../src/firewall/OwnPorts.ts"
import { Backends, MapperConfig } from "../../src/mapper/MapperContext.ts"
import type { Mode, PortScope } from "../../src/mapper/model/Labels.ts"
import { Mappings } from "../../src/mapper/model/Mapping.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import type { PortRange } from "../../src/protocol/PortRange.ts"
import { Relay } from "../../src/relay/Relay.ts"
import * as LinuxByteCounter from "../linux/conntrack/ByteCounter.ts"
import * as LinuxConntrack from "../linux/conntrack/Conntrack.ts"
import { hasIpv6 } from "../linux/hasIpv6.ts"
import { makeNamespaceLock, type NamespaceLock } from "../linux/nft/NamespaceLock.ts"
import * as NftFirewall from "../linux/nft/NftFirewall.ts"
import type { AcceptMark } from "../linux/nft/Ruleset.ts"
import * as LinuxSockets from "../linux/sockets/LinuxSockets.ts"
import * as SqliteMappingStore from "../node/SqliteMappingStore.ts"
import { lockState } from "../node/StateLock.ts"
import * as LinuxRelay from "../relay/LinuxRelay.ts"
import type { HandoverError } from "../upgrade/Messages.ts"

/** Makes ports unique in a cluster; see `src/cluster`. */
export interface ClusterWiring {
  /** Where ports are unique whose labels don't say. */
  readonly scope: PortScope
  /** Puts itself in the place of the host's allocator. */
  readonly ports: Layer.Layer<
    PortAllocator | Cluster,
    { readonly _tag: string; readonly message: string },
    PortAllocator | HostSockets
  >
}

export interface MapperOptions {
  readonly stateDirectory: string
  /** `undefined` is `auto`. */
  readonly mode: Mode | undefined
  readonly ephemeral: PortRange | undefined
  readonly acceptMark: AcceptMark | undefined
  /** The mark for our own rule in DOCKER-USER, if none is agreed on with the Engine. */
  readonly dockerUserMark?: AcceptMark | undefined
  /** Reports whether a container is gone; unknown if `undefined`. */
  readonly backends?: Layer.Layer<Backends, { readonly _tag: string; readonly message: string }> | undefined
  /** A relayed UDP flow is closed after this long without a packet in either direction. */
  readonly udpIdle: Duration.Duration | undefined
  /** The services that callers of every kind may join; see `Capabilities`. */
  readonly shares?: ReadonlyArray<string> | undefined
  /** None if `undefined`: ports are unique on this host. */
  readonly cluster?: ClusterWiring | undefined
  /** How long to wait for another process to release the state; not at all if `undefined`. */
  readonly lockWait?: Duration.Input | undefined
  /** The lock on the kernel's table, if it has to outlive the mapper; by default it ends with the mapper. */
  readonly lock?: NamespaceLock | undefined
  /** The ports on loopback addresses that this process listens on now, to be guarded. */
  readonly listening?: (() => ReadonlyArray<Guard>) | undefined
  /** Replaces the services that the mapper calls, as tracing does; none if `undefined`. */
  readonly decorate?: (<S>(services: Context.Context<S>) => Context.Context<S>) | undefined
  /** Runs right after the state is locked, before anything else: if it fails, the start fails. */
  readonly onLocked?: Effect.Effect<void, HandoverError> | undefined
}

/** Mode `nat` was requested, and the kernel's tables can't be changed. */
export class NatUnavailable extends Schema.TaggedError<NatUnavailable>()("NatUnavailable", {
  reason: Schema.String
}) {
  override get message(): string {
    return `serving in mode nat: ${this.reason}`
  }
}

/** The host's sockets, and a relay on them; `paused`: see `RelayHandover`. */
export const socketsAndRelay = (options: {
  readonly udpIdle: Duration.Duration | undefined
  readonly paused?: boolean
}) => LinuxRelay.layer(options).pipe(Layer.provideMerge(LinuxSockets.layer()))

/** The built-in mapper on this host, with its own sockets and relay; see `mapperOn`. */
export const mapperLayer = (options: MapperOptions) =>
  mapperOn(options).pipe(Layer.provide(socketsAndRelay(options)))

/**
 * The built-in mapper on the sockets and the relay of a host, alone on its state directory and, in `nat` mode, in its
 * network namespace. `auto` is `nat` if the kernel's tables can be changed, else `proxy`; the choice, its reason and
 * the remedy are logged. Sockets and routes outlive it.
 */
export const mapperOn = (options: MapperOptions) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const { protocols } = yield* Relay
      const stateLock = yield* lockState(options.stateDirectory, { wait: options.lockWait })
      if (options.onLocked !== undefined) yield* options.onLocked
      const own = yield* firewallOrReason(options)
      const firewall = Result.map(own, ({ firewall }) => firewall)
      const natUnavailable = Result.isFailure(firewall) ? firewall.failure : undefined
      const defaultMode = options.mode ?? (natUnavailable === undefined ? "nat" : "proxy")
      if (defaultMode === "nat" && natUnavailable !== undefined)
        return yield* new NatUnavailable({ reason: natUnavailable })
      yield* Effect.logInfo(
        options.mode === undefined && natUnavailable !== undefined
          ? `mode ${defaultMode}, since nat is not available: ${natUnavailable}`
          : `mode ${defaultMode}`
      )
      const ipv6 = hasIpv6()
      if (!ipv6) yield* Effect.logInfo("this host has no IPv6: nothing is published on [::]")
      const allocator = PortAllocator.layer({ ephemeral: options.ephemeral })
      const services = Layer.mergeAll(
        Mappings.layer,
        options.cluster === undefined ? allocator : Layer.provide(options.cluster.ports, allocator),
        Result.isSuccess(firewall)
          ? Layer.provideMerge(LinuxConntrack.layer, Layer.succeed(Firewall, firewall.success))
          : Layer.merge(Firewall.layerNone(firewall.failure), Conntrack.layerNone),
        Result.isSuccess(firewall) ? LinuxByteCounter.layer : ByteCounter.layerNone,
        SqliteMappingStore.layer(options.stateDirectory, { lock: stateLock }),
        options.backends ?? Backends.layerUnknown,
        Layer.succeed(MapperConfig, {
          defaultMode,
          natUnavailable,
          marksAccepted: options.acceptMark !== undefined,
          ipv6,
          relayed: protocols,
          shares: options.shares,
          scope: options.cluster?.scope
        })
      )
      const { decorate } = options
      const decorated =
        decorate === undefined
          ? services
          : Layer.effectContext(
              Effect.gen(function* () {
                const host = yield* Effect.context<HostSockets | Relay>()
                const built = yield* Layer.build(services)
                return decorate(Context.merge(Context.pick(HostSockets, Relay)(host), built))
              })
            )
      const ownPorts = Result.isSuccess(own) ? own.success.ownPorts : OwnPorts.none
      return Layer.merge(PortMapper.layer.pipe(Layer.provide(decorated)), Layer.succeed(OwnPorts, ownPorts))
    })
  )

/** The loaded kernel table; or why it is not available, and the remedy. Never shared with another process. */
const firewallOrReason = Effect.fnUntraced(function* (options: MapperOptions) {
  const { acceptMark, dockerUserMark, mode, listening = () => [] } = options
  const lock = options.lock ?? (yield* makeNamespaceLock())
  if (mode !== undefined && mode !== "nat") {
    lock.release()
    return Result.fail(`mode ${mode} was requested`)
  }
  return yield* Layer.build(NftFirewall.layer({ acceptMark: acceptMark ?? dockerUserMark, lock })).pipe(
    Effect.map((built) => Result.succeed(withOwnPorts(Context.get(built, Firewall), listening))),
    Effect.catchTag("FirewallError", ({ message }) => {
      lock.release()
      return Effect.succeed(Result.fail(message))
    })
  )
})

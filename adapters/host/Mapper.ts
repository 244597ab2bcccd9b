/**
 * The one place where host adapters are chosen: what this process may do decides the mode, and everything else follows.
 */
import { Context, type Duration, Effect, Layer, Result, Schema } from "effect"
import { ByteCounter } from "../../src/firewall/ByteCounter.ts"
import { Conntrack } from "../../src/firewall/Conntrack.ts"
import { Firewall, type Guard } from "../../src/firewall/Firewall.ts"
import { OwnPorts, withOwnPorts } from "../../src/firewall/OwnPorts.ts"
import type { Mode } from "../../src/mapper/Labels.ts"
import { Backends, MapperConfig } from "../../src/mapper/MapperContext.ts"
import { Mappings } from "../../src/mapper/Mapping.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import type { PortRange } from "../../src/protocol/PortRange.ts"
import { Relay } from "../../src/relay/Relay.ts"
import * as LinuxByteCounter from "../linux/conntrack/ByteCounter.ts"
import * as LinuxConntrack from "../linux/conntrack/Conntrack.ts"
import { makeNamespaceLock, type NamespaceLock } from "../linux/nft/NamespaceLock.ts"
import * as NftFirewall from "../linux/nft/NftFirewall.ts"
import type { AcceptMark } from "../linux/nft/Ruleset.ts"
import * as LinuxSockets from "../linux/sockets/LinuxSockets.ts"
import * as SqliteMappingStore from "../node/SqliteMappingStore.ts"
import { lockState } from "../node/StateLock.ts"
import * as LinuxRelay from "../relay/LinuxRelay.ts"
import type { HandoverError } from "../upgrade/Messages.ts"

export interface MapperOptions {
  readonly stateDirectory: string
  /** `undefined` is `auto`. */
  readonly mode: Mode | undefined
  readonly ephemeral: PortRange | undefined
  readonly acceptMark: AcceptMark | undefined
  /** What is marked for our own rule in DOCKER-USER, where no mark is agreed on with the Engine. */
  readonly dockerUserMark?: AcceptMark | undefined
  /** Who knows whether a container is gone; nobody where `undefined`. */
  readonly backends?: Layer.Layer<Backends, { readonly _tag: string; readonly message: string }> | undefined
  /** After this long without a packet either way a relayed UDP flow is closed. */
  readonly udpIdle: Duration.Duration | undefined
  /** How long to wait for another process to be done with the state; not at all where `undefined`. */
  readonly lockWait?: Duration.Input | undefined
  /** The lock on the kernel's table, where it outlives the mapper; by default it ends with it. */
  readonly lock?: NamespaceLock | undefined
  /** The ports on loopback addresses that this process listens on now, to be guarded. */
  readonly listening?: (() => ReadonlyArray<Guard>) | undefined
  /** Runs once the state is this process's own, before anything else: its failure is the start's. */
  readonly onLocked?: Effect.Effect<void, HandoverError> | undefined
}

/** Mode `nat` was asked for, and the kernel's tables can't be changed. */
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

/** The built-in mapper on this host, with everything of its own; see `mapperOn`. */
export const mapperLayer = (options: MapperOptions) =>
  mapperOn(options).pipe(Layer.provide(socketsAndRelay(options)))

/**
 * The built-in mapper on the sockets and the relay of a host, alone on its state directory and, in `nat` mode, in its
 * network namespace. `auto` is `nat` where the kernel's tables can be changed, else `proxy`; what was chosen, and what to
 * do about it, is logged. Sockets and routes outlive it.
 */
export const mapperOn = (options: MapperOptions) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const { protocols } = yield* Relay
      yield* lockState(options.stateDirectory, { wait: options.lockWait })
      if (options.onLocked !== undefined) yield* options.onLocked
      const own = yield* firewallOrReason(options)
      const firewall = Result.map(own, ({ firewall }) => firewall)
      const natUnavailable = Result.isFailure(firewall) ? firewall.failure : undefined
      const defaultMode = options.mode ?? (natUnavailable === undefined ? "nat" : "proxy")
      if (defaultMode === "nat" && natUnavailable !== undefined)
        return yield* new NatUnavailable({ reason: natUnavailable })
      yield* Effect.logInfo(
        options.mode === undefined && natUnavailable !== undefined
          ? `mode ${defaultMode}, since nat can't be had: ${natUnavailable}`
          : `mode ${defaultMode}`
      )
      const services = Layer.mergeAll(
        Mappings.layer,
        PortAllocator.layer({ ephemeral: options.ephemeral }),
        Result.isSuccess(firewall)
          ? Layer.provideMerge(LinuxConntrack.layer, Layer.succeed(Firewall, firewall.success))
          : Layer.merge(Firewall.layerNone(firewall.failure), Conntrack.layerNone),
        Result.isSuccess(firewall) ? LinuxByteCounter.layer : ByteCounter.layerNone,
        SqliteMappingStore.layer(options.stateDirectory),
        options.backends ?? Backends.layerUnknown,
        Layer.succeed(MapperConfig, {
          defaultMode,
          natUnavailable,
          marksAccepted: options.acceptMark !== undefined,
          relayed: protocols
        })
      )
      const ownPorts = Result.isSuccess(own) ? own.success.ownPorts : OwnPorts.none
      return Layer.merge(PortMapper.layer.pipe(Layer.provide(services)), Layer.succeed(OwnPorts, ownPorts))
    })
  )

/** The kernel's table, loaded; or why it can't be had and what to do about it. Never shared with another process. */
const firewallOrReason = Effect.fnUntraced(function* (options: MapperOptions) {
  const { acceptMark, dockerUserMark, mode, listening = () => [] } = options
  const lock = options.lock ?? (yield* makeNamespaceLock())
  if (mode !== undefined && mode !== "nat") {
    lock.release()
    return Result.fail(`mode ${mode} was asked for`)
  }
  return yield* Layer.build(NftFirewall.layer({ acceptMark: acceptMark ?? dockerUserMark, lock })).pipe(
    Effect.map((built) => Result.succeed(withOwnPorts(Context.get(built, Firewall), listening))),
    Effect.catchTag("FirewallError", ({ message }) => {
      lock.release()
      return Effect.succeed(Result.fail(message))
    })
  )
})

/**
 * What is asked of a Docker Engine: its containers, where they are to be reached, and when that changes. How it is asked is
 * `EngineHttp`'s; `MemoryEngine` is one that a test runs.
 */
import { Context, type Effect, Schema, type Stream } from "effect"
import type { IpNetwork } from "effect/net"
import type { Address } from "../../src/protocol/Address.ts"
import type { Labels } from "../../src/protocol/PortBinding.ts"

export interface Network {
  readonly id: string
  readonly name: string
  /** `bridge`, `macvlan`, or the name of another driver. */
  readonly driver: string
  /** Without a way out of the host, nor one in. */
  readonly internal: boolean
  /** Where a `-p` without an address binds: an address of either family; `undefined` or `0.0.0.0`: all of both families. */
  readonly hostBinding: Address | undefined
  /** The prefixes that the Engine gives container addresses from; none where it does not say which containers have one. */
  readonly subnets: ReadonlyArray<IpNetwork.IpNetwork>
}

/** A container's place in one network. Neither address while it does not run. */
export interface Attachment {
  readonly network: Network
  /** Which network the Engine prefers for the default route; 0 where it does not say. */
  readonly gatewayPriority: number
  /** 1 for an IPv4 gateway and 2 for an IPv6 one, added up. */
  readonly gateways: number
  readonly v4: Address | undefined
  readonly v6: Address | undefined
}

export interface Container {
  /** 64 hexadecimal digits. */
  readonly id: string
  /** Without the slash that the API puts before it. */
  readonly name: string
  /** What its image is known by to the Engine. */
  readonly image: string
  /** Its processes are there; a paused one's are. */
  readonly running: boolean
  /** `default`, `host`, `none`, `container:ID`, or the name of the network that it was made for. */
  readonly networkMode: string
  /** Its own and those of its image, which are not told apart. */
  readonly labels: Labels
  readonly attachments: ReadonlyArray<Attachment>
}

/** As people and labels write an id. */
export const shortId = (id: string): string => id.slice(0, 12)

/** `Connected` comes first: from now on no change is missed. `Changed` names the container that something happened to. */
export type EngineEvent =
  | { readonly _tag: "Connected" }
  | { readonly _tag: "Changed"; readonly id: string; readonly action: string }

export interface EngineInfo {
  readonly version: string
  /** `iptables`, `nftables`, with variants such as `iptables+firewalld`; an Engine before 29 does not say. */
  readonly firewall: string | undefined
}

/** `Unreachable`: nobody answers there. `Denied`: the socket is not ours to use. `Refused`: the Engine's answer is no. */
export class EngineError extends Schema.TaggedError<EngineError>()("EngineError", {
  where: Schema.String,
  reason: Schema.Literals(["Unreachable", "Denied", "TimedOut", "Refused", "NotAnEngine"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `the Engine at ${this.where}: ${this.detail}`
  }
}

export class Engine extends Context.Service<
  Engine,
  {
    /** Where it is, for people. */
    readonly where: string
    /**
     * All containers, running or not, the oldest first. Never waits for a container's start or stop to be done: it is safe to
     * ask while the Engine waits for us. Each of these is bounded in time.
     */
    readonly containers: Effect.Effect<ReadonlyArray<Container>, EngineError>
    /** The labels of an image; `undefined` where it is no longer there. */
    readonly imageLabels: (image: string) => Effect.Effect<Labels | undefined, EngineError>
    /** Waits until no change to this container is under way, bounded; one that is gone is settled. */
    readonly settled: (id: string) => Effect.Effect<void, EngineError>
    readonly networks: Effect.Effect<ReadonlyArray<Network>, EngineError>
    readonly info: Effect.Effect<EngineInfo, EngineError>
    /** Starts, ends, renames and network changes of containers until the connection breaks, which is a failure. */
    readonly events: Stream.Stream<EngineEvent, EngineError>
  }
>()("portmapper/engine/Engine") {}

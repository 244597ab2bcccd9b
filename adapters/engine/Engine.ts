/**
 * What the watch needs from a Docker Engine: its containers, their addresses, the events that change them, and the start
 * and stop of one that sleeps.
 * `EngineHttp` implements it over HTTP; `MemoryEngine` in memory for tests.
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
  /** The name of the host's interface, with driver `bridge`. */
  readonly bridge: string
  /** Without a way out of the host or into it. */
  readonly internal: boolean
  /**
   * The address at which a `-p` without one binds, of either family; `undefined` or `0.0.0.0`: all addresses of
   * both families.
   */
  readonly hostBinding: Address | undefined
  /**
   * The prefixes that the Engine assigns container addresses from; none if the Engine does not report which
   * containers have one.
   */
  readonly subnets: ReadonlyArray<IpNetwork.IpNetwork>
}

/** A container's endpoint in one network. It has no address while the container does not run. */
export interface Attachment {
  readonly network: Network
  /** The priority of this network for the default route; 0 if the Engine does not report one. */
  readonly gatewayPriority: number
  /** The sum of 1 for an IPv4 gateway and 2 for an IPv6 one. */
  readonly gateways: number
  readonly v4: Address | undefined
  readonly v6: Address | undefined
}

export interface Container {
  /** 64 hexadecimal digits. */
  readonly id: string
  /** Without the slash that the API puts in front. */
  readonly name: string
  /** The Engine's name for its image. */
  readonly image: string
  /** Its processes exist; those of a paused container do. */
  readonly running: boolean
  /** It ended and is not about to be restarted. */
  readonly ended: boolean
  /** It was created and has not run since. */
  readonly neverRan?: boolean | undefined
  readonly createdMillis: number
  /** `default`, `host`, `none`, `container:ID`, or the name of the network that it was created for. */
  readonly networkMode: string
  /** Its own labels merged with those of its image; the API does not distinguish them. */
  readonly labels: Labels
  readonly attachments: ReadonlyArray<Attachment>
  /** Why it should get no new connections: what its health check says, that it is paused, or is about to stop. */
  readonly unready?: "starting" | "unhealthy" | "paused" | "stopping" | undefined
  /** It has a health check, which passed last. */
  readonly healthy?: boolean | undefined
}

/** Whether that is so, as far as its label `portmapper.health` lets its health check count. */
export const isUnready = ({ unready }: Pick<Container, "unready">, health: string | undefined): boolean =>
  unready !== undefined && (health !== "ignore" || unready === "paused" || unready === "stopping")

/** An id as users and labels write it. */
export const shortId = (id: string): string => id.slice(0, 12)

/** `NAME/ID`, as the label `portmapper.container` and lists of mappings have it. */
export const nameAndId = ({ name, id }: Pick<Container, "name" | "id">): string => `${name}/${shortId(id)}`

/**
 * `Connected` comes first: from then on no change is missed. `Changed` names the container that something happened
 * to; `stop` says that it was sent a signal that ends it.
 */
export type EngineEvent =
  | { readonly _tag: "Connected" }
  | { readonly _tag: "Changed"; readonly id: string; readonly action: string }

export interface EngineInfo {
  /** Stays the same through its restarts; empty if it does not report one. */
  readonly id: string
  readonly version: string
  /** `iptables`, `nftables`, with variants such as `iptables+firewalld`; an Engine before 29 does not report it. */
  readonly firewall: string | undefined
}

/**
 * `Unreachable`: no process listens there. `Denied`: this process may not use the socket. `Refused`: the Engine
 * refused the request.
 */
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
    /** The Engine's address, for messages. */
    readonly where: string
    /**
     * All containers, running or not, the oldest first. Never waits for a container to start or stop: it is safe to
     * call while the Engine waits for us. Each of these calls is bounded in time; the start and the stop by minutes.
     */
    readonly containers: Effect.Effect<ReadonlyArray<Container>, EngineError>
    /** The labels of an image; `undefined` if it no longer exists. */
    readonly imageLabels: (image: string) => Effect.Effect<Labels | undefined, EngineError>
    /** Waits until no change to this container is in progress, bounded; one that is gone is settled. */
    readonly settled: (id: string) => Effect.Effect<void, EngineError>
    /**
     * Which run of the container is the present or last one: a text that differs from run to run. `undefined` if the
     * container is gone. Waits as `settled` does.
     */
    readonly runOf: (id: string) => Effect.Effect<string | undefined, EngineError>
    /** Returns once it runs, which it may have done before. Fails if it is gone. */
    readonly start: (id: string) => Effect.Effect<void, EngineError>
    /** As `docker stop`: returns once it has ended, which it may have done before. Fails if it is gone. */
    readonly stop: (id: string) => Effect.Effect<void, EngineError>
    readonly networks: Effect.Effect<ReadonlyArray<Network>, EngineError>
    readonly info: Effect.Effect<EngineInfo, EngineError>
    /** Creations, starts, ends, renames and network changes of containers until the connection breaks, which is a failure. */
    readonly events: Stream.Stream<EngineEvent, EngineError>
  }
>()("portmapper/engine/Engine") {}

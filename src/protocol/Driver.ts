/**
 * The contract between the transports and a port mapper: the `Driver` interface of the Go package, in Effect.
 * The built-in mapper is one driver; a user's own is `Driver.of({ mapPorts, unmapPorts })`, served by any transport.
 */
import { Context, type Effect, type Scope } from "effect"
import type { Group, Labels, PortBinding, Release } from "./PortBinding.ts"
import type { Publish } from "./PublishSyntax.ts"

/** A failure that depends on the state of the host. `message` is shown to the person who asked, so it is written for them. */
export interface DriverError {
  readonly _tag: string
  readonly message: string
}

/** Why several groups were not published: the error of the `group`th (from 0), or that of all together. */
export interface GroupsError<E = DriverError> {
  readonly group: number | undefined
  readonly error: E
}

/** So many groups at most are asked for in one call: it is bounded, and others wait for it. */
export const groupsAtOnce = 256

/** One live mapping as `ListPorts` tells it; see `INTERFACE` in the README for the fields' meaning. */
export interface ListedMapping {
  readonly protocol: number
  readonly frontendIp: string
  readonly frontendPort: number
  readonly backendIp: string
  readonly backendPort: number
  readonly mode: string
  readonly owner: string
  readonly state: "live" | "unconfirmed" | "stale" | "conflicted"
  /** Milliseconds since the Unix epoch. */
  readonly sinceMillis: number
  readonly labels: ReadonlyMap<string, string>
  /** `undefined` where the host does not count them. */
  readonly connections: number | undefined
  readonly bytesIn: number | undefined
  readonly bytesOut: number | undefined
  /** What its allow-list kept out: packets, and connections where they are relayed. Told by `/metrics` alone. */
  readonly refused?: number | undefined
}

/** Ports of a container known by its name or id, each as `-p` asks for them. */
export interface Follow {
  readonly container: string
  readonly publish: ReadonlyArray<Publish>
  readonly labels: Labels
}

export class Driver extends Context.Service<
  Driver,
  {
    /**
     * Publishes a group and returns one binding for each entry, in order.
     *
     * MUST give every entry the same port; MUST answer as before, and change nothing but the policy, for what is mapped
     * already; MUST change nothing when it fails or is interrupted: what it had created, changed or evicted is as it was.
     *
     * The scope is the delivery of the answer. Closed with a failure, the caller never saw it, and what this very call
     * created MUST be released, unless another call has been answered with it since. A policy stays as it was asked for
     * last, and what was evicted stays evicted. A driver that needs no such undoing has no use for the scope.
     */
    readonly mapPorts: (group: Group) => Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Scope.Scope>
    /**
     * Publishes several groups, all of them or none: what `mapPorts` does for each, for less. A driver without it is asked
     * for one after the other; so whoever wraps `mapPorts` wraps this, too, or leaves it out.
     */
    readonly mapGroups?: (
      groups: ReadonlyArray<Group>
    ) => Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, GroupsError, Scope.Scope>
    /**
     * Releases bindings. What is not mapped is released already: it MUST succeed. MUST keep going past an error, and
     * fail if any binding could not be released: the Engine reads no body of a success.
     */
    readonly unmapPorts: (release: Release) => Effect.Effect<void, DriverError>
    /** What is mapped, in no particular order. */
    readonly listPorts?: Effect.Effect<ReadonlyArray<ListedMapping>, DriverError>
    /**
     * Publishes ports of a running container, all of them or none, and follows it: they lead to wherever it is after a
     * restart, until they are unmapped. Answers and scope as with `mapPorts`, group after group.
     */
    readonly followContainer?: (
      follow: Follow
    ) => Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Scope.Scope>
    /** An Engine began to use this plugin (`Plugin.Activate`); it may be a new start of an Engine seen before. */
    readonly activated?: Effect.Effect<void>
  }
>()("portmapper/protocol/Driver") {}

/**
 * Whose mappings `listPorts` is asked for; `undefined` asks for all. A driver that narrows itself to them, and leaves their
 * counters unread, answers the sooner; what it tells of others is left out in any case.
 */
export const ListedOwner = Context.Reference<string | undefined>("portmapper/protocol/ListedOwner", {
  defaultValue: () => undefined
})

/** What names an owner: it is shown on terminals and travels in a header. */
export const isOwner = (text: string): boolean => /^[\x21-\x7e]{1,128}$/.test(text)

export const ownerRule = "1 to 128 printable ASCII characters, none of them a space"

/** Who asks: `engine`, `cli`, `watch`, `session`, `cni:ID/IFNAME`. Set by the transport, for each call. */
export const CurrentOwner = Context.Reference<string>("portmapper/protocol/CurrentOwner", {
  defaultValue: () => "engine"
})

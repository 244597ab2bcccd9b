/**
 * The contract between the transports and a port mapper: the `Driver` interface of the Go package, in Effect. The
 * built-in mapper is one driver; your own is `Driver.of({ mapPorts, unmapPorts })`, and any transport serves it.
 */
import { Context, type Effect, type Scope } from "effect"
import type { Address } from "./Address.ts"
import type { Refused } from "./Limits.ts"
import type { Group, Labels, PortBinding, PublishedPort, Release, ReleasedBinding } from "./PortBinding.ts"
import type { Publish, PublishTo, Unpublish } from "./PublishSyntax.ts"

/**
 * A failure that depends on the state of the host. `message` is shown to the user who made the request: write it
 * for them.
 */
export interface DriverError {
  readonly _tag: string
  readonly message: string
}

/**
 * Why several groups were not published: `group` is the index (from 0) of the group at fault, `undefined` for all
 * of them.
 */
export interface GroupsError<E = DriverError> {
  readonly group: number | undefined
  readonly error: E
}

/** The most groups that clients send in one call: a call is bounded in time, and other calls wait for it. */
export const groupsAtOnce = 256

/**
 * `waiting`, `asleep`, `waking`, `drained`: the port is held, and no new connection is led to the backend. The last is by a
 * person, the others by who mapped it.
 */
export const mappingStates = [
  ...(["live", "unconfirmed", "stale", "conflicted", "standby"] as const),
  ...(["waiting", "asleep", "waking", "drained"] as const)
] as const
export type MappingState = (typeof mappingStates)[number]

/** One live mapping as `ListPorts` returns it; see docs/INTERFACE.md for the fields' meaning. */
export interface ListedMapping {
  readonly protocol: number
  readonly frontendIp: string
  readonly frontendPort: number
  readonly backendIp: string
  readonly backendPort: number
  readonly mode: string
  readonly owner: string
  readonly state: MappingState
  /** Milliseconds since the Unix epoch. */
  readonly sinceMillis: number
  readonly labels: ReadonlyMap<string, string>
  /** `undefined` where the host does not count them. */
  readonly connections: number | undefined
  readonly bytesIn: number | undefined
  readonly bytesOut: number | undefined
  /** Connections that are open to a drained backend, led there by this mapping or not; flows, in UDP. */
  readonly open?: number | undefined
  /** In a list of the cluster: the host that has it, and where others reach that one, if it says so. */
  readonly at?: { readonly host: string; readonly address: string | undefined } | undefined
  /** The container it belongs to, as `NAME/ID` or `ID` with the first 12 digits of the id; `undefined` if unknown. */
  readonly container?: string | undefined
  /** The service whose port it shares. */
  readonly service?: string | undefined
  /** How many of its service's slots it has: its part of the new connections. */
  readonly slots?: ListedSlots | undefined
  /** Why it is conflicted, or not relayed; why its container does not wake, or is not stopped. */
  readonly reason?: string | undefined
  readonly carriers?: Carriers | undefined
  /** What each of its labels refused that can refuse: packets, and connections where they are relayed. */
  readonly refused?: Partial<Refused> | undefined
}

/**
 * How many connections have begun, and how many are open now; flows, in UDP. The first number says only whether any
 * began between two looks: it may start anew.
 */
export interface Connections {
  readonly begun: number
  readonly open: number
}

export interface ListedSlots {
  readonly has: number
  /** The number of the service's slots. */
  readonly of: number
}

/** What carries the traffic of a mapping. */
export interface Carriers {
  /** A socket holds its host port. */
  readonly socket: boolean
  /** The kernel's table redirects it. */
  readonly kernel: boolean
  /** What the relay carries: what comes from the host's own loopback addresses, or everything. */
  readonly relay: "loopback" | "everything" | undefined
}

/** Ports to publish for a container, given by name or id; each as in `-p`. */
export interface FollowRequest {
  readonly container: string
  readonly publish: ReadonlyArray<Publish>
  readonly labels: Labels
}

/** Ports to publish at the addresses of interfaces; each `publish` names one. */
export interface InterfaceRequest {
  readonly to: PublishTo
  readonly publish: ReadonlyArray<Publish>
  readonly labels: Labels
}

/** A backend whose traffic is taken away (`drained`) or given back. */
export interface DrainRequest {
  /** A container's name, at least 12 digits of its id, or an address. */
  readonly backend: string
  /** The id of the container that `backend` names, where an Engine tells it. */
  readonly container?: string | undefined
  /** Its addresses, as far as they are known. */
  readonly addresses?: ReadonlyArray<Address> | undefined
  /** Only these of its published ports; all of them if the list is empty. */
  readonly ports: ReadonlyArray<Unpublish>
  readonly drained: boolean
}

export class Driver extends Context.Service<
  Driver,
  {
    /**
     * Publishes a group and returns one binding for each entry, in order.
     *
     * MUST give every entry the same port. For what is already mapped, MUST return the same answer and change
     * nothing but the policy. When it fails or is interrupted, MUST leave everything it had created, changed or
     * evicted as it was before.
     *
     * The scope is the delivery of the answer. If it closes with a failure, the caller never saw the answer, and
     * what this very call created MUST be released, unless another call has answered with it since. The policy
     * requested last stays, and evicted mappings stay evicted. A driver that needs no such undoing can ignore the
     * scope.
     */
    readonly mapPorts: (group: Group) => Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Scope.Scope>
    /**
     * Publishes several groups, all of them or none: like `mapPorts` for each, but cheaper. Without it, the
     * transports call `mapPorts` for one group after the other. A wrapper of `mapPorts` must therefore wrap
     * `mapGroups` too, or leave it out.
     */
    readonly mapGroups?: (
      groups: ReadonlyArray<Group>
    ) => Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, GroupsError, Scope.Scope>
    /**
     * Releases bindings. MUST succeed for a binding that is not mapped. MUST keep going past an error, and fail if
     * any binding could not be released: the Engine reads no body of a success.
     */
    readonly unmapPorts: (release: Release) => Effect.Effect<void, DriverError>
    /** All mappings, in no particular order. */
    readonly listPorts?: Effect.Effect<ReadonlyArray<ListedMapping>, DriverError>
    /**
     * Publishes ports of a running container, all of them or none, and follows it: after a restart the ports lead
     * to its new address, until they are unmapped. Answers and scope as with `mapPorts`, group after group.
     */
    readonly followContainer?: (
      follow: FollowRequest
    ) => Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Scope.Scope>
    /**
     * Returns the frontend of an idle mapping where a client has begun to wait: at least the first one since the mapping
     * became idle, and about one a second of those that follow.
     */
    readonly waits?: Effect.Effect<PublishedPort>
    /**
     * The connections of all these bindings together, and those that lead to their backends by any other way. A frontend
     * may be named with several backends, whether or not it leads to them now.
     */
    readonly connectionsOf?: (
      bindings: ReadonlyArray<ReleasedBinding>
    ) => Effect.Effect<Connections, DriverError>
    /**
     * Publishes ports at every address of an interface, all of them or none, and follows the interface: at an address
     * that comes later they are published as soon as it is there, until they are unmapped. An interface without an
     * address, or that does not exist, is waited for. Answers and scope as with `mapPorts`, address after address.
     */
    readonly followInterface?: (
      follow: InterfaceRequest
    ) => Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Scope.Scope>
    /**
     * From now on leads no new connection to the backend, or does again; what is established goes on. Returns the
     * mappings concerned; fails if there is none. MUST survive a kill once it was answered, and end with the mapping.
     */
    readonly drain?: (request: DrainRequest) => Effect.Effect<ReadonlyArray<PortBinding>, DriverError>
    /** An Engine began to use this plugin (`Plugin.Activate`). It may be an Engine seen before that was restarted. */
    readonly activated?: Effect.Effect<void>
  }
>()("portmapper/protocol/Driver") {}

/**
 * The owner whose mappings the caller of `listPorts` wants; `undefined` means all. A driver that reads only these,
 * and skips their counters, returns sooner; the transports filter the result by owner in any case.
 */
export const ListedOwner = Context.Reference<string | undefined>("portmapper/protocol/ListedOwner", {
  defaultValue: () => undefined
})

/**
 * Whose mappings the caller of `listPorts` wants: this host's, or what all hosts of its cluster have claimed. A driver
 * that is in no cluster fails.
 */
export const ListedScope = Context.Reference<"host" | "cluster">("portmapper/protocol/ListedScope", {
  defaultValue: () => "host"
})

/** Whether the text is a valid owner name: it is printed on terminals and travels in a header. */
export const isOwner = (text: string): boolean => /^[\x21-\x7e]{1,128}$/.test(text)

export const ownerRule = "1 to 128 printable ASCII characters, none of them a space"

/**
 * Whether the owner is a session: `session`, or `session:NAME`. What it maps ends with it: with the connection that
 * called the plugin, with the input of `portmapper rpc`, and at the latest when the mapper starts again.
 */
export const isSession = (owner: string): boolean => owner === "session" || owner.startsWith("session:")

/**
 * The owner of the current call: `engine`, `cli`, `watch`, `session`, `cni:ID/IFNAME`. The transport sets it for
 * each call.
 */
export const CurrentOwner = Context.Reference<string>("portmapper/protocol/CurrentOwner", {
  defaultValue: () => "engine"
})

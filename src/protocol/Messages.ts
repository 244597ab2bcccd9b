/**
 * The wire messages: Go's names, field order and JSON rules (`GoSchema.ts`), with the leaves decoded (an address is
 * an `Address`, labels are a `Map`). `Requests.ts` validates them and converts them to the types of
 * `PortBinding.ts`, which the rest of the program uses.
 *
 * Source: the Go package `portmapper`, as the Engine (moby/moby#50259) speaks it; `ListPorts`, `MapGroups`,
 * `FollowContainer`, `FollowInterface`, `Drain` and `Undrain` are ours.
 */
import type { Schema } from "effect"
import {
  address,
  bool,
  draftBool,
  draftUint16,
  goStruct,
  int,
  labels,
  list,
  optional,
  optionalInt,
  optionalText,
  Text,
  text,
  uint16
} from "./GoSchema.ts"

/**
 * The most entries of a group, groups of a call and ports of a follow: far more than a host has addresses or a
 * caller needs.
 */
const most = 1000

/** The most bindings of one release. A binding takes at least some fifty bytes, and the body has a limit as well. */
const mostReleased = 20_000

/**
 * One entry of a group. `FrontendPort` 0 requests any free port; `FrontendPortEnd` is the end of a range,
 * inclusive. `FullRange` (of a draft): not one port of the range is requested, but all, each for a backend port of
 * its own, from `BackendPort` on.
 */
export const PortBindingReq = goStruct({
  Proto: int,
  BackendIP: address,
  BackendPort: uint16,
  FrontendIP: address,
  FrontendPort: uint16,
  FrontendPortEnd: uint16,
  FullRange: draftBool
})

export const MapPortsRequest = goStruct({ Reqs: list(PortBindingReq, most), Labels: labels })

export const NATRule = goStruct({ FromAddr: address, FromPort: uint16 })

const wireBinding = {
  Proto: int,
  BackendIP: address,
  BackendPort: uint16,
  FrontendIP: address,
  FrontendPort: uint16,
  DiscardReq: bool,
  AllowForwarding: bool,
  NAT: optional(NATRule),
  Error: optionalText
}

/** One binding of an answer. Go calls it `PortBinding`, the name of our domain type. */
export const WirePortBinding = goStruct(wireBinding)

/** A binding to release; with the fields that the answer to a full range has. */
export const WireReleasedBinding = goStruct({
  ...wireBinding,
  FrontendPortEnd: draftUint16,
  FullRange: draftBool
})

export const MapPortsResponse = goStruct({ PortBindings: list(WirePortBinding), Err: text })

/** Several groups, each with its own port: all of them are mapped, or none. */
export const MapGroupsRequest = goStruct({ Groups: list(MapPortsRequest, most) })

/** One answer for each group, in order. */
export const MapGroupsResponse = goStruct({ Groups: list(MapPortsResponse), Err: text })

export const UnmapPortsRequest = goStruct({
  PortBindings: list(WireReleasedBinding, mostReleased),
  Labels: labels
})

export const UnmapPortsResponse = goStruct({})

export const ActivateResponse = goStruct({ Implements: list(Text) })

export const ErrorResponse = goStruct({ Err: text })

/**
 * `OwnedBy`: returns only this owner's mappings, without reading their counters; `""` returns everything. `Scope`:
 * `cluster` returns what all hosts of the cluster have; `""` is `host`.
 */
export const ListPortsRequest = goStruct({ OwnedBy: text, Scope: text })

/** How many clients each label refused; `null` for one that the mapping does not have. */
export const WireRefused = goStruct({
  Allow: optionalInt,
  Connections: optionalInt,
  Rate: optionalInt,
  RatePerSource: optionalInt
})

/** It has `Has` of the service's `Of` slots. */
export const WireSlots = goStruct({ Has: int, Of: int })

/**
 * `Since` is RFC 3339 in UTC; a counter is `null` where the host does not count; `Service` is `""`, and `Slots` is
 * `null`, for a mapping that shares its port with no other; `Refused` is `null` where nothing limits the mapping;
 * `Open` is `null` unless the mapping is drained; `Container` is `""` where it is unknown, and `Reason` where there is none. `Host` and `HostAddress` are `""` but in a
 * list of the cluster.
 */
export const WireMapping = goStruct({
  Proto: int,
  FrontendIP: address,
  FrontendPort: uint16,
  BackendIP: address,
  BackendPort: uint16,
  Mode: text,
  Owner: text,
  State: text,
  Since: text,
  Labels: labels,
  Connections: optionalInt,
  BytesIn: optionalInt,
  BytesOut: optionalInt,
  Service: text,
  Refused: optional(WireRefused),
  Slots: optional(WireSlots),
  Open: optionalInt,
  Container: text,
  Reason: text,
  Host: text,
  HostAddress: text
})

export const ListPortsResponse = goStruct({ Mappings: list(WireMapping) })

/** `Publish` is in Docker's `-p` syntax. The answer is a `MapPortsResponse`. */
export const FollowContainerRequest = goStruct({ Container: text, Publish: list(Text, most), Labels: labels })

/** `To` is one address of the container, or one of each family; each `Publish` names an interface. */
export const FollowInterfaceRequest = goStruct({
  To: list(Text, 2),
  Publish: list(Text, most),
  Labels: labels
})

/** `Backend` is a container's name or id, or an address; `Ports` are in the syntax of `unmap -p`. */
export const DrainRequest = goStruct({ Backend: text, Ports: list(Text, most) })

/** A message as plain data: what `JSON.stringify` writes and what a caller in process passes. */
export type Encoded<S extends Schema.Constraint> = S["Encoded"]

/** A request as a caller may write it: a missing field is its zero value. */
export type Given<S extends Schema.Constraint> = Partially<Encoded<S>>

export type Partially<T> =
  T extends ReadonlyArray<infer A>
    ? ReadonlyArray<Partially<A>>
    : T extends object
      ? { readonly [K in keyof T]?: Partially<T[K]> }
      : T

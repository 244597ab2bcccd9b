/**
 * The messages as they travel: Go's names, Go's field order, Go's JSON habits (`GoSchema.ts`), with the leaves decoded
 * (an address is an `Address`, labels are a `Map`). What a message means, and which messages mean nothing, is decided
 * in `Requests.ts`; both are left behind there, and the rest of the program speaks the words of `PortBinding.ts`.
 *
 * Source: the Go package `portmapper`, as the Engine (moby/moby#50259) speaks it; `ListPorts`, `MapGroups` and
 * `FollowContainer` are ours.
 */
import type { Schema } from "effect"
import {
  address,
  bool,
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

/** Of one group, of one call's groups and of what is followed: far more than a host has addresses or a caller needs. */
const most = 1000

/** A binding of a mass release takes some fifty bytes at least, and a body has a limit of its own. */
const mostReleased = 20_000

/** One entry of a group. `FrontendPort` 0 asks for any free port; `FrontendPortEnd` is the end of a range, inclusive. */
export const PortBindingReq = goStruct({
  Proto: int,
  BackendIP: address,
  BackendPort: uint16,
  FrontendIP: address,
  FrontendPort: uint16,
  FrontendPortEnd: uint16
})

export const MapPortsRequest = goStruct({ Reqs: list(PortBindingReq, most), Labels: labels })

export const NATRule = goStruct({ FromAddr: address, FromPort: uint16 })

/** One binding as answered. Its name in Go is `PortBinding`, which here is the domain's. */
export const WirePortBinding = goStruct({
  Proto: int,
  BackendIP: address,
  BackendPort: uint16,
  FrontendIP: address,
  FrontendPort: uint16,
  DiscardReq: bool,
  AllowForwarding: bool,
  NAT: optional(NATRule),
  Error: optionalText
})

export const MapPortsResponse = goStruct({ PortBindings: list(WirePortBinding), Err: text })

/** Several groups, each with a port of its own: all of them are mapped, or none. */
export const MapGroupsRequest = goStruct({ Groups: list(MapPortsRequest, most) })

/** One answer for each group, in order. */
export const MapGroupsResponse = goStruct({ Groups: list(MapPortsResponse), Err: text })

export const UnmapPortsRequest = goStruct({
  PortBindings: list(WirePortBinding, mostReleased),
  Labels: labels
})

export const UnmapPortsResponse = goStruct({})

export const ActivateResponse = goStruct({ Implements: list(Text) })

export const ErrorResponse = goStruct({ Err: text })

/** `OwnedBy`: only what this owner has mapped, without its counters, which are not read then; `""` is everything. */
export const ListPortsRequest = goStruct({ OwnedBy: text })

/** `Since` is RFC 3339 in UTC; a counter is `null` where the host does not count. */
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
  BytesOut: optionalInt
})

export const ListPortsResponse = goStruct({ Mappings: list(WireMapping) })

/** `Publish` is in Docker's `-p` syntax. The answer is a `MapPortsResponse`. */
export const FollowContainerRequest = goStruct({ Container: text, Publish: list(Text, most), Labels: labels })

/** A message as plain data: what `JSON.stringify` writes and what a caller in process hands over. */
export type Encoded<S extends Schema.Constraint> = S["Encoded"]

/** A request as a caller may write it: what is left out is its zero value. */
export type Given<S extends Schema.Constraint> = Partially<Encoded<S>>

export type Partially<T> =
  T extends ReadonlyArray<infer A>
    ? ReadonlyArray<Partially<A>>
    : T extends object
      ? { readonly [K in keyof T]?: Partially<T[K]> }
      : T

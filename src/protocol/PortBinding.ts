/**
 * What callers request of a port mapper and what it grants: the domain side of the protocol's messages. Go's field
 * names and JSON stop at `Messages.ts`.
 */
import { type Address, hostText } from "./Address.ts"
import { type PortRange, rangeText } from "./PortRange.ts"
import type { Protocol } from "./Protocol.ts"

/** `port` is 0–65535; an endpoint that carries traffic has 1–65535. */
export interface Endpoint {
  readonly address: Address
  readonly port: number
}

/** What clients connect to. */
export interface PublishedPort {
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
}

/** Which port a group requests; bounds are inclusive. */
export type PortRequest =
  | { readonly _tag: "Exact"; readonly port: number }
  | { readonly _tag: "Range"; readonly first: number; readonly last: number }
  | { readonly _tag: "Ephemeral" }

/**
 * One entry of a group. `host` is the address that clients connect to; if the caller gave none, it is the
 * unspecified address of the backend's family, and `requestedAddress` is `""`. The answer repeats the text
 * `requestedAddress`.
 */
export interface Entry {
  readonly protocol: Protocol
  readonly host: Address
  readonly requestedAddress: string
  readonly backend: Endpoint
}

/** The container's labels, all of them, as the Engine sends them. */
export type Labels = ReadonlyMap<string, string>

/** The entries of one `MapPorts` call: all of them get the same port, or none gets any. */
export interface Group {
  readonly entries: ReadonlyArray<Entry>
  readonly ports: PortRequest
  readonly labels: Labels
}

/**
 * The answer to one entry, in the order requested.
 *
 * - `discarded`: the reason this entry could not be served although its group was; the Engine logs it and does not
 *   list the port. Otherwise `undefined`.
 * - `allowForwarding`: the Engine should let forwarded traffic reach the backend.
 * - `nat`: the Engine should redirect this address and port itself; takes precedence over `allowForwarding`.
 */
export interface PortBinding {
  readonly entry: Entry
  readonly port: number
  readonly discarded: string | undefined
  readonly allowForwarding: boolean
  readonly nat: { readonly address: Address | undefined; readonly port: number } | undefined
}

/** What `UnmapPorts` names. Frontend and backend identify a binding; the other fields of its answer don't matter. */
export interface Release {
  readonly bindings: ReadonlyArray<ReleasedBinding>
  readonly labels: Labels
}

/**
 * `host` is resolved as in `Entry`. `port` 0 names a mapping without a host port (mode `routed`), which its backend
 * identifies. A backend without an address (`undefined`), or with port 0, matches whatever backend the frontend
 * has. At least one of the two sides is complete.
 */
export interface ReleasedBinding extends PublishedPort {
  readonly backend: { readonly address: Address | undefined; readonly port: number }
}

/** Whether a released binding with this backend means a mapping to `endpoint`. */
export const meansBackend = (
  { address, port }: ReleasedBinding["backend"],
  endpoint: ReleasedBinding["backend"]
): boolean =>
  address === undefined || port === 0 || (endpoint.address?.key === address.key && endpoint.port === port)

export const sameBackend = (a: Endpoint, b: Endpoint): boolean =>
  a.port === b.port && a.address.key === b.address.key

/** `0.0.0.0:8080/tcp`, `[::1]:53/udp`. */
export const frontendText = ({ protocol, host, port }: PublishedPort): string =>
  `${hostText(host)}:${port}/${protocol}`

/** `0.0.0.0:8000-8010/tcp`; one port where both ends are equal. */
export const rangeFrontendText = (protocol: Protocol, host: Address, ports: PortRange): string =>
  `${hostText(host)}:${rangeText(ports)}/${protocol}`

/** `172.17.0.2:80`, `[fd00::2]:80`. */
export const endpointText = ({ address, port }: Endpoint): string => `${hostText(address)}:${port}`

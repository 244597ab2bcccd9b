/**
 * `FullRange` of the protocol's drafts: all ports of a range, each for a backend port of its own, or none. Drivers
 * know only groups of one port: a full range is a group for each of its ports, mapped together.
 *
 * Source: moby/moby#50259 (`PortBindingReq.FullRange`).
 */
import type { Endpoint, Group, PortBinding, ReleasedBinding } from "./PortBinding.ts"
import type { PortRange } from "./PortRange.ts"

/** The most ports of the full ranges of a call, each counted for each of its addresses. */
export const mostOfRanges = 20_000

export const sizeOf = ({ first, last }: PortRange): number => last - first + 1

/** One group for each port. */
export const groupsOfRange = (group: Group, range: PortRange): ReadonlyArray<Group> =>
  Array.from({ length: sizeOf(range) }, (_, index) => ({
    ...group,
    ports: { _tag: "Exact", port: range.first + index },
    entries: group.entries.map((entry) => ({ ...entry, backend: later(entry.backend, index) }))
  }))

/** The bindings of the first port stand for the range: an entry's ports are all served the same way. */
export const bindingsOfRange = (
  answers: ReadonlyArray<ReadonlyArray<PortBinding>>
): ReadonlyArray<PortBinding> => answers[0] ?? []

/** One binding for each port. */
export const releasedOfRange = (binding: ReleasedBinding, last: number): ReadonlyArray<ReleasedBinding> =>
  Array.from({ length: last - binding.port + 1 }, (_, index) => ({
    ...binding,
    port: binding.port + index,
    backend: binding.backend.port === 0 ? binding.backend : later(binding.backend, index)
  }))

const later = <E extends { readonly port: Endpoint["port"] }>(backend: E, index: number): E => ({
  ...backend,
  port: backend.port + index
})

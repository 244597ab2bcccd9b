/**
 * From what is wanted and what is mapped to what is to be done about it. Pure. A port that was given once is asked for again,
 * so that a container keeps it through restarts, its own and ours.
 */

import { Result } from "effect"
import { parseAddress } from "../../src/protocol/Address.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import type { Group, PortRequest, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { containerOfLabels, keyOfMapping, type Want } from "./Wanted.ts"

/** What is mapped for one want. */
export interface Held {
  /** The container's name when it was mapped. */
  readonly name: string
  readonly owner: string
  /** 0 where it has no host port (mode `routed`). */
  readonly port: number
  readonly bindings: ReadonlyArray<ReleasedBinding>
  /** What was asked for it, by `signatureOf`; `undefined` where an earlier process asked. */
  readonly signature: string | undefined
}

/** A want to be mapped: first on the port that it had before, if it had one, then as it was asked for. */
export interface Ask {
  readonly want: Want
  readonly tries: ReadonlyArray<PortRequest>
}

export interface Changes {
  /** What nobody wants any more, or not for this backend, by the key of its want. To be released before anything is mapped. */
  readonly release: ReadonlyArray<{ readonly key: string; readonly bindings: ReadonlyArray<ReleasedBinding> }>
  /** Exact ports first, so that no range picks one of them. */
  readonly map: ReadonlyArray<Ask>
}

/** `granted` are the ports that wants had when they were last mapped. */
export const changesFor = (
  wants: ReadonlyArray<Want>,
  held: ReadonlyMap<string, Held>,
  granted: ReadonlyMap<string, number>
): Changes => {
  const wanted = new Map(wants.map((want) => [want.key, want]))
  const release: Array<Changes["release"][number]> = []
  for (const [key, { bindings }] of held) {
    const want = wanted.get(key)
    const gone = want === undefined ? bindings : bindings.filter((binding) => !asksFor(want.group, binding))
    if (gone.length > 0) release.push({ key, bindings: gone })
  }
  const map: Array<Ask> = []
  for (const want of wanted.values()) {
    const has = held.get(want.key)
    if (has !== undefined && has.signature === signatureOf(want.group)) continue
    map.push({ want, tries: triesOf(want.group.ports, has?.port ?? granted.get(want.key)) })
  }
  return { release, map: map.sort((a, b) => rank(a) - rank(b)) }
}

/** Two groups with the same signature are answered alike. */
export const signatureOf = ({ entries, ports, labels }: Group): string =>
  JSON.stringify([
    entries.map(({ protocol, host, backend }) => [protocol, host.key, backend.address.key, backend.port]),
    ports,
    [...labels]
  ])

/** What is mapped for containers, by the keys of the wants it is for. `before` still knows what it asked for. */
export const heldFrom = (
  listed: ReadonlyArray<ListedMapping>,
  before: ReadonlyMap<string, Held>
): Map<string, Held> => {
  const found = new Map<string, Omit<Held, "signature"> & { readonly bindings: Array<ReleasedBinding> }>()
  for (const mapping of listed) {
    const key = keyOfMapping(mapping.owner, mapping.labels, mapping.backendPort)
    const binding = key === undefined ? undefined : bindingOf(mapping)
    if (key === undefined || binding === undefined) continue
    const there = found.get(key)
    if (there !== undefined) there.bindings.push(binding)
    else {
      const { frontendPort: port, labels, owner } = mapping
      found.set(key, { name: containerOfLabels(labels)?.name ?? "", owner, port, bindings: [binding] })
    }
  }
  return new Map(
    [...found].map(([key, held]) => {
      const known = before.get(key)
      const same =
        known !== undefined &&
        known.bindings.length === held.bindings.length &&
        known.bindings.every((one) => held.bindings.some((other) => sameBinding(one, other)))
      return [key, { ...held, signature: same ? known.signature : undefined }]
    })
  )
}

export const sameFrontend = (
  a: Pick<ReleasedBinding, "protocol" | "host" | "port">,
  b: Pick<ReleasedBinding, "protocol" | "host" | "port">
): boolean => a.protocol === b.protocol && a.port === b.port && a.host.key === b.host.key

const sameBinding = (a: ReleasedBinding, b: ReleasedBinding): boolean =>
  sameFrontend(a, b) && a.backend.port === b.backend.port && a.backend.address?.key === b.backend.address?.key

const asksFor = ({ entries }: Group, { protocol, host, backend }: ReleasedBinding): boolean =>
  entries.some(
    (entry) =>
      entry.protocol === protocol &&
      entry.host.key === host.key &&
      entry.backend.port === backend.port &&
      entry.backend.address.key === backend.address?.key
  )

const triesOf = (asked: PortRequest, before: number | undefined): ReadonlyArray<PortRequest> =>
  asked._tag === "Exact" || before === undefined || before === 0
    ? [asked]
    : [{ _tag: "Exact", port: before }, asked]

const rank = ({ tries: [first] }: Ask): number => (first?._tag === "Exact" ? 0 : 1)

const bindingOf = ({
  protocol,
  frontendIp,
  frontendPort,
  backendIp,
  backendPort
}: ListedMapping): ReleasedBinding | undefined => {
  const known = protocolOfNumber(protocol)
  const host = parseAddress(frontendIp)
  const address = parseAddress(backendIp)
  if (known === undefined || Result.isFailure(host) || Result.isFailure(address)) return undefined
  return {
    protocol: known,
    host: host.success,
    port: frontendPort,
    backend: { address: address.success, port: backendPort }
  }
}

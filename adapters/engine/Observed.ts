/** What the driver has mapped for containers, by the keys of the groups. Pure. */
import { Result } from "effect"
import { idleLabel } from "../../src/mapper/model/Labels.ts"
import { parseAddress } from "../../src/protocol/Address.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { followedContainer, publishLabel, toLabel } from "../../src/protocol/FollowLabels.ts"
import type { Group, PublishedPort, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { interfaceOf } from "../../src/protocol/PublishSyntax.ts"
import { groupKey } from "./Subscription.ts"

export interface ObservedGroup {
  /** The container's name when it was mapped; see `DesiredGroup`. */
  readonly name: string
  readonly owner: string
  /** 0 if it has no host port (mode `routed`). */
  readonly port: number
  readonly bindings: ReadonlyArray<ReleasedBinding>
  /** Whether it has no traffic. */
  readonly idle: boolean
  /**
   * The signature of its request, by `signatureOf`; `undefined` if an earlier process made it, or if the bindings
   * changed since.
   */
  readonly signature: string | undefined
}

export type Observed = ReadonlyMap<string, ObservedGroup>

/** Takes the signatures from `before`. */
export const observedFrom = (listed: ReadonlyArray<ListedMapping>, before: Observed): Observed => {
  const found = new Map<string, ObservedGroup>()
  for (const mapping of listed) {
    const key = keyOf(mapping)
    const binding = bindingOf(mapping)
    if (key === undefined || binding === undefined) continue
    const before = found.get(key)
    const bindings = [...(before?.bindings ?? []), binding]
    const { owner, frontendPort: port, labels } = mapping
    const idle = before?.idle === true || labels.has(idleLabel)
    found.set(key, {
      name: followedOf(mapping)?.name ?? "",
      owner,
      port,
      bindings,
      idle,
      signature: undefined
    })
  }
  for (const [key, group] of found) {
    const known = before.get(key)
    if (known !== undefined && sameBindings(known, group))
      found.set(key, { ...group, signature: known.signature })
  }
  return found
}

/** Groups with the same signature are mapped alike. */
export const signatureOf = ({ entries, ports, labels }: Group): string =>
  JSON.stringify([entries.map(entryText), ports, [...labels]])

/** What a group's entry and its binding have in common: all but the port. */
export const entryText = ({
  protocol,
  host,
  backend
}: Pick<ReleasedBinding, "protocol" | "host" | "backend">): string =>
  `${protocol} ${host.key} ${backend.address?.key} ${backend.port}`

/** The key of the group of a mapping; `undefined` if it is for no container. */
export const keyOf = (mapping: ListedMapping): string | undefined => {
  const of = followedOf(mapping)
  const host = parseAddress(mapping.frontendIp)
  if (of === undefined || Result.isFailure(host)) return undefined
  const { id, publish } = of
  const place = interfaceOf(publish) === undefined ? undefined : host.success.key
  return groupKey(mapping.owner, id, publish, mapping.backendPort, place)
}

/** The groups that are drained, each at a frontend, as `drainedKey` has them. */
export const drainedFrom = (listed: ReadonlyArray<ListedMapping>): ReadonlySet<string> =>
  new Set(
    listed.flatMap((mapping) => {
      if (mapping.state !== "drained") return []
      const key = keyOf(mapping)
      const binding = bindingOf(mapping)
      return key === undefined || binding === undefined ? [] : [drainedKey(key, binding)]
    })
  )

export const drainedKey = (group: string, { protocol, host, port }: PublishedPort): string =>
  `${group} ${protocol} ${host.key} ${port}`

const followedOf = ({
  labels
}: ListedMapping): { readonly name: string; readonly id: string; readonly publish: string } | undefined => {
  const to = labels.get(toLabel)
  const { name = to, id = to } = followedContainer(labels) ?? {}
  const publish = labels.get(publishLabel)
  if (name === undefined || id === undefined || publish === undefined) return undefined
  return { name, id, publish }
}

const bindingOf = (mapping: ListedMapping): ReleasedBinding | undefined => {
  const protocol = protocolOfNumber(mapping.protocol)
  const host = parseAddress(mapping.frontendIp)
  const address = parseAddress(mapping.backendIp)
  if (protocol === undefined || Result.isFailure(host) || Result.isFailure(address)) return undefined
  const backend = { address: address.success, port: mapping.backendPort }
  return { protocol, host: host.success, port: mapping.frontendPort, backend }
}

const sameBindings = (a: ObservedGroup, b: ObservedGroup): boolean => {
  const texts = (bindings: ReadonlyArray<ReleasedBinding>) =>
    bindings.map((binding) => `${binding.port} ${entryText(binding)}`).sort()
  return `${texts(a.bindings)}` === `${texts(b.bindings)}`
}

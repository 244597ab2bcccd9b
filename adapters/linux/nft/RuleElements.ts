/** Converts rules to the elements that enforce them, and back. */
import { IpNetwork, NetAddress } from "effect/net"
import type { Counted, Limit, Redirect, RefusedFlow, Rule } from "../../../src/firewall/Firewall.ts"
import {
  type Family,
  fromOctets,
  isUnspecified,
  octetsOf,
  unspecified
} from "../../../src/protocol/Address.ts"
import { type Protocol, protocolNumber, protocolOfNumber } from "../../../src/protocol/Protocol.ts"
import type { SlotShare } from "../../../src/protocol/Slots.ts"
import { isRelayed } from "../../../src/relay/Relay.ts"
import {
  bytesText,
  type Element,
  type Place,
  type Scope,
  serviceKind,
  serviceKinds,
  setOf
} from "./TableSets.ts"

/** Why a rule cannot be enforced by the table, or `undefined`. */
export const unfit = (rule: Rule): string | undefined =>
  rule._tag === "Redirect" && rule.host.family !== rule.backend.address.family
    ? `IPv${rule.host.family} cannot be redirected to IPv${rule.backend.address.family}`
    : undefined

export const elementsOf = (rule: Rule): ReadonlyArray<Element> => {
  const { host, protocol, port } = rule
  const scope: Scope = rule._tag !== "Guard" && isUnspecified(host) ? "any" : "addr"
  const frontend = new Uint8Array((scope === "addr" ? host.octets.length : 0) + 8)
  if (scope === "addr") frontend.set(host.octets)
  frontend[frontend.length - 8] = protocolNumber[protocol]
  writePort(frontend, frontend.length - 4, port)
  const plain = (kind: "limited" | "denied" | "rate" | "overrate" | "loopback"): Element => ({
    set: setOf(kind, scope, host.family),
    key: frontend
  })

  if (rule._tag === "Guard") return [plain("loopback")]
  const elements: Array<Element> = []
  if (rule._tag === "Redirect") {
    const { address, port: backendPort } = rule.backend
    const data = new Uint8Array(address.octets.length + 4)
    data.set(address.octets)
    writePort(data, address.octets.length, backendPort)
    if (!rule.idle) elements.push(...redirections(rule.share, { scope, family: host.family }, frontend, data))
    if (isRelayed(protocol))
      elements.push({
        set: setOf("hairpin", scope, host.family),
        key: concat(frontend, address.octets)
      })
    if (rule.rate !== undefined) elements.push({ ...plain("rate"), rate: rule.rate }, plain("overrate"))
  }
  if (rule.allow !== undefined) {
    elements.push(plain("limited"), plain("denied"))
    for (const network of networksOf(rule.allow, host.family))
      elements.push({
        set: setOf("allowed", scope, host.family),
        key: concat(frontend, octetsOf(IpNetwork.firstAddress(network))),
        last: concat(frontend, octetsOf(IpNetwork.lastAddress(network)))
      })
  }
  return elements
}

/** One element, or one for each slot of a service's backend. */
const redirections = (
  share: SlotShare | undefined,
  { scope, family }: Place,
  frontend: Uint8Array,
  data: Uint8Array
): ReadonlyArray<Element> => {
  if (share === undefined) return [{ set: setOf("redirect", scope, family), key: frontend, data }]
  const set = setOf(serviceKind(share), scope, family)
  return share.slots.map((slot) => ({
    set,
    key: concat(frontend, new Uint8Array(Uint32Array.of(slot).buffer)),
    data
  }))
}

/** What the backend sends: its address, protocol and port, then the client's address and port. */
export const refusedElement = ({ protocol, backend, client }: RefusedFlow): Element => {
  const length = backend.address.octets.length
  const key = new Uint8Array(length * 2 + 12)
  key.set(backend.address.octets)
  key[length] = protocolNumber[protocol]
  writePort(key, length + 4, backend.port)
  key.set(client.address.octets, length + 8)
  writePort(key, length * 2 + 8, client.port)
  return { set: setOf("refused", "addr", backend.address.family), key }
}

/** The networks of a family, without those contained in another: ranges of a set must not overlap. */
const networksOf = (allow: ReadonlyArray<IpNetwork.IpNetwork>, family: Family) => {
  const own = allow.filter((network) => IpNetwork.isIpv4Network(network) === (family === 4))
  // By first address, the widest first: a network within another comes right after it, before anything beyond it.
  const sorted = own.sort((one, other) => byFirstAddress(one, other) || one.prefixLength - other.prefixLength)
  const outermost: Array<IpNetwork.IpNetwork> = []
  for (const network of sorted) {
    const last = outermost.at(-1)
    if (last === undefined || !IpNetwork.containsNetwork(last, network)) outermost.push(network)
  }
  return outermost
}

/** An element as read from the kernel, with its counter. */
export interface CountedElement extends Element {
  readonly packets: number
}

/**
 * The rules that these elements enforce. Skips elements that belong to no rule, such as those of another program.
 */
export const rulesOf = (
  elements: ReadonlyArray<CountedElement>
): { readonly rules: ReadonlyArray<Rule>; readonly counted: ReadonlyArray<Counted> } => {
  const allowed = new Map<string, Array<IpNetwork.IpNetwork>>()
  const denied = new Map<string, number>()
  const rates = new Map<string, number>()
  const overRates = new Map<string, number>()
  const redirected = new Set<string>()
  const rules: Array<Rule> = []
  const counted: Array<Counted> = []

  for (const { set, key, last, rate, packets } of elements) {
    const { family } = set.place
    if (set.kind === "denied") denied.set(frontendKey(set.place, key), packets)
    if (rate !== undefined) rates.set(frontendKey(set.place, key), rate)
    if (set.kind === "overrate") overRates.set(frontendKey(set.place, key), packets)
    if (set.kind !== "allowed" || last === undefined) continue
    const frontend = frontendKey(set.place, key.subarray(0, key.length - (family === 4 ? 4 : 16)))
    const networks = allowed.get(frontend) ?? []
    networks.push(networkOf(key, last, family))
    allowed.set(frontend, networks)
  }
  for (const networks of allowed.values()) networks.sort(byFirstAddress)
  const limits = new Set(
    elements.filter(({ set }) => set.kind === "limited").map(({ set, key }) => frontendKey(set.place, key))
  )
  const add = (rule: Redirect | Limit, key: string, connections: number) => {
    const rate = rates.get(key)
    const rated = rate === undefined || rule._tag === "Limit" ? rule : { ...rule, rate }
    rules.push(rated)
    counted.push({
      ...{ rule: rated, connections },
      ...{ dropped: denied.get(key) ?? 0, overRate: overRates.get(key) ?? 0 }
    })
    // A service has one rule for each backend.
    denied.delete(key)
    overRates.delete(key)
  }

  for (const { set, key, data, packets } of elements) {
    if (set.kind !== "redirect" || data === undefined) continue
    const known = frontendKey(set.place, key)
    const frontend = frontendOf(set.place, key)
    if (frontend === undefined) continue
    redirected.add(known)
    const backend = { address: fromOctets(data.slice(0, -4)), port: readPort(data, data.length - 4) }
    const allow = limits.has(known) ? (allowed.get(known) ?? []) : undefined
    add({ _tag: "Redirect", ...frontend, backend, allow }, known, packets)
  }
  for (const { rule, key, packets } of serviceRulesOf(elements)) {
    redirected.add(key)
    add({ ...rule, allow: limits.has(key) ? (allowed.get(key) ?? []) : undefined }, key, packets)
  }
  for (const { set, key } of elements) {
    if (set.kind !== "loopback" && set.kind !== "limited") continue
    const known = frontendKey(set.place, key)
    const frontend = frontendOf(set.place, key)
    if (frontend === undefined) continue
    if (set.kind === "loopback") rules.push({ _tag: "Guard", ...frontend })
    if (set.kind === "limited" && !redirected.has(known))
      add({ _tag: "Limit", ...frontend, allow: allowed.get(known) ?? [] }, known, 0)
  }
  return { rules, counted }
}

/** One rule for each backend of a service, with the key of its frontend. */
const serviceRulesOf = (elements: ReadonlyArray<CountedElement>) => {
  const members = new Map<string, { rule: Redirect; slots: Array<number>; key: string; packets: number }>()
  for (const { set, key, data, packets } of elements) {
    if (set.slots === undefined || data === undefined) continue
    const frontendBytes = key.subarray(0, -4)
    const frontend = frontendOf(set.place, frontendBytes)
    if (frontend === undefined) continue
    const known = frontendKey(set.place, frontendBytes)
    const member = `${set.kind} ${known} ${data.join(" ")}`
    const slots = members.get(member)?.slots ?? []
    const [slot = 0] = new Uint32Array(key.slice(-4).buffer)
    slots.push(slot)
    const backend = { address: fromOctets(data.slice(0, -4)), port: readPort(data, data.length - 4) }
    const { balance = "random" } = serviceKinds.find(({ kind }) => kind === set.kind) ?? {}
    const share = { balance, size: set.slots, slots }
    const rule: Redirect = { _tag: "Redirect", ...frontend, backend, allow: undefined, share }
    members.set(member, {
      rule,
      slots,
      key: known,
      packets: packets + (members.get(member)?.packets ?? 0)
    })
  }
  for (const { slots } of members.values()) slots.sort((a, b) => a - b)
  return members.values()
}

const byFirstAddress = (one: IpNetwork.IpNetwork, other: IpNetwork.IpNetwork): number =>
  Buffer.compare(octetsOf(IpNetwork.firstAddress(one)), octetsOf(IpNetwork.firstAddress(other)))

const frontendKey = ({ scope, family }: Place, key: Uint8Array): string =>
  `${scope}${family} ${bytesText(key)}`

const frontendOf = ({ scope, family }: Place, key: Uint8Array) => {
  const protocol: Protocol | undefined = protocolOfNumber(key[key.length - 8] ?? 0)
  if (protocol === undefined) return undefined
  const host = scope === "any" ? unspecified(family) : fromOctets(key.slice(0, -8))
  return { protocol, host, port: readPort(key, key.length - 4) }
}

const networkOf = (key: Uint8Array, last: Uint8Array, family: Family): IpNetwork.IpNetwork => {
  const length = family === 4 ? 4 : 16
  const first = key.slice(-length)
  const end = last.slice(-length)
  let prefix = 0
  while (prefix < length * 8 && bit(first, prefix) === bit(end, prefix)) prefix++
  const address = family === 4 ? NetAddress.ipv4FromBytesUnsafe(first) : NetAddress.ipv6FromBytesUnsafe(first)
  return IpNetwork.fromAddressUnsafe(address, prefix)
}

const bit = (bytes: Uint8Array, index: number): number => ((bytes[index >> 3] ?? 0) >> (7 - (index & 7))) & 1

const concat = (one: Uint8Array, other: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(one.length + other.length)
  bytes.set(one)
  bytes.set(other, one.length)
  return bytes
}

const writePort = (bytes: Uint8Array, at: number, port: number) => {
  bytes[at] = port >> 8
  bytes[at + 1] = port & 255
}

const readPort = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)

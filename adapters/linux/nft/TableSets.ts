/**
 * The sets and maps of our table, and how netlink encodes an element of each.
 *
 * Each kind exists four times, for an address of either family (`addr4`, `addr6`) and for the unspecified one
 * (`any4`, `any6`), so that keys are as short as possible and the families stay apart.
 */
import type { Family } from "../../../src/protocol/Address.ts"
import { type Balance, type Size, type SlotShare, sizes } from "../../../src/protocol/Slots.ts"

export type Scope = "any" | "addr"

/** Where rules look packets up: in scope `addr` the frontend's address is part of the key. */
export interface Place {
  readonly scope: Scope
  readonly family: Family
}

/**
 * `redirect`: frontend → backend, counting connections. `limited`: frontends that have an allow-list. `allowed`:
 * frontend and source network. `denied`: the frontends of `limited` again, counting dropped packets, since a set
 * counts every packet that is looked up in it. `rate`: frontends with a rate; an element matches only packets
 * beyond it. `overrate`: the same frontends, counting those packets. `hairpin`: frontend and its backend's address, where the relay serves
 * that backend's own connections. `loopback`: frontends on loopback addresses. `refused`: packets of backends in
 * ended flows, which belong to no rule of `Firewall`. `random64` and so on: frontend and slot → backend, for services
 * of that balance and size.
 */
export type SetKind =
  | "redirect"
  | "limited"
  | "allowed"
  | "denied"
  | "rate"
  | "overrate"
  | "hairpin"
  | "loopback"
  | "refused"
  | ServiceKind

export type ServiceKind = `${Balance}${Size}`
export const serviceKind = ({ balance, size }: Pick<SlotShare, "balance" | "size">): ServiceKind =>
  `${balance}${size}`

export const serviceKinds = (["random", "source"] as const).flatMap((balance) =>
  sizes.map((size) => ({ balance, size, kind: serviceKind({ balance, size }) }))
)

/** An element; `last` is the end of the range of keys that starts at `key`. */
export interface Element {
  readonly set: TableSet
  readonly key: Uint8Array
  readonly last?: Uint8Array | undefined
  readonly data?: Uint8Array | undefined
  /** In set `rate`: how many packets in a second it lets pass. */
  readonly rate?: number | undefined
}

type Field = "ipv4_addr" | "ipv6_addr" | "inet_proto" | "inet_service"

export interface TableSet {
  readonly name: string
  readonly kind: SetKind
  readonly place: Place
  readonly key: ReadonlyArray<Field>
  readonly data: ReadonlyArray<Field> | undefined
  /** The number of slots of a service's map, whose last part of the key is a slot, in the host's byte order. */
  readonly slots: Size | undefined
}

const addressField = (family: Family): Field => (family === 4 ? "ipv4_addr" : "ipv6_addr")

const frontendFields = ({ scope, family }: Place): ReadonlyArray<Field> => [
  ...(scope === "addr" ? [addressField(family)] : []),
  "inet_proto",
  "inet_service"
]

const makeSet = (kind: SetKind, place: Place): TableSet => {
  const suffix = `${place.scope}${place.family}`
  const frontend = frontendFields(place)
  const key: Partial<Record<SetKind, ReadonlyArray<Field>>> = {
    allowed: [...frontend, addressField(place.family)],
    hairpin: [...frontend, addressField(place.family)],
    refused: [...frontend, addressField(place.family), "inet_service"]
  }
  const slots = serviceKinds.find((service) => service.kind === kind)?.size
  const ofFamily = kind === "loopback" || kind === "refused"
  return {
    name: kind === "redirect" ? suffix : ofFamily ? `${kind}${place.family}` : `${kind}_${suffix}`,
    kind,
    place,
    key: key[kind] ?? frontend,
    data:
      kind === "redirect" || slots !== undefined ? [addressField(place.family), "inet_service"] : undefined,
    slots
  }
}

const places: ReadonlyArray<Place> = [
  { scope: "addr", family: 4 },
  { scope: "any", family: 4 },
  { scope: "addr", family: 6 },
  { scope: "any", family: 6 }
]

const ofEachFamily = (kind: SetKind): ReadonlyArray<TableSet> =>
  ([4, 6] as const).map((family) => makeSet(kind, { scope: "addr", family }))

/** The sets whose elements are rules. */
export const ruleSets: ReadonlyArray<TableSet> = [
  ...(["redirect", "limited", "allowed", "denied", "rate", "overrate", "hairpin"] as const).flatMap((kind) =>
    places.map((place) => makeSet(kind, place))
  ),
  ...ofEachFamily("loopback"),
  ...serviceKinds.flatMap(({ kind }) => places.map((place) => makeSet(kind, place)))
]

/** The sets of which an element tells more about a rule than the others: a hairpin follows from its redirection. */
export const tellingSets: ReadonlyArray<TableSet> = ruleSets.filter(({ kind }) => kind !== "hairpin")

export const tableSets: ReadonlyArray<TableSet> = [...ruleSets, ...ofEachFamily("refused")]

const byKey = new Map(tableSets.map((set) => [setKey(set.kind, set.place.scope, set.place.family), set]))

export const setOf = (kind: SetKind, scope: Scope, family: Family): TableSet => {
  const set = byKey.get(setKey(kind, scope, family))
  if (set === undefined) throw new Error(`no set ${setKey(kind, scope, family)}`)
  return set
}

function setKey(kind: SetKind, scope: Scope, family: Family): string {
  return `${kind} ${scope} ${family}`
}

/** The key of an element within the table. */
export const elementKey = ({ set, key, last }: Element): string =>
  `${set.name} ${bytesText(key)}${last === undefined ? "" : `-${bytesText(last)}`}`

export const sameData = (one: Element, other: Element): boolean =>
  one.rate === other.rate &&
  (one.data === undefined || other.data === undefined
    ? one.data === other.data
    : Buffer.compare(one.data, other.data) === 0)

/** A character for each byte: only to tell keys apart, and fast. */
export const bytesText = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1")

/** `map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; counter; }`. */
export const setText = (set: TableSet): string => {
  if (set.slots !== undefined) return serviceText(set, set.slots)
  const data = set.data === undefined ? "" : ` : ${set.data.join(" . ")}`
  const flags = flagsOf[set.kind] ?? ""
  const counter = ["redirect", "denied", "overrate"].includes(set.kind) ? " counter;" : ""
  return `${set.data === undefined ? "set" : "map"} ${set.name} { type ${set.key.join(" . ")}${data};${flags}${counter} }`
}

/**
 * A map of services is declared by expressions, since no type has the name of a slot's. `jhash` has the same type as
 * `numgen`, but nft 1.0.6 crashes when it lists a map declared by it.
 */
const serviceText = ({ name, place: { scope, family } }: TableSet, slots: Size): string => {
  const address = `${family === 4 ? "ip" : "ip6"} daddr`
  const key = [
    ...(scope === "addr" ? [address] : []),
    "meta l4proto",
    "th dport",
    `numgen random mod ${slots}`
  ]
  return `map ${name} { typeof ${key.join(" . ")} : ${address} . th dport; counter; }`
}

/** `refused`: for as long as the kernel remembers an idle connection. `rate`: each element has its own number. */
const flagsOf: Partial<Record<SetKind, string>> = {
  allowed: " flags interval;",
  rate: " limit rate over 1/second;",
  refused: " flags timeout; timeout 5d;"
}

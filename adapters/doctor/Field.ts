/**
 * Evaluates an expression of nft's JSON (libnftables-json(5)) for a packet, and whether the result is among the
 * values it is compared with.
 */
import { Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import { parseAddress, parseNetwork } from "../../src/protocol/Address.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"
import { every, is, type Match, not, some } from "./Match.ts"
import { isInterface, isPlaceWithin, isPortWithin, type Packet, type Place, type Port } from "./Packet.ts"
import { type Json, list, record, type Sets } from "./Tables.ts"

/** `Foreign`: the packet has no such field, and the rule does not match. */
export type Field =
  | { readonly _tag: "Words"; readonly words: ReadonlyArray<string> }
  | { readonly _tag: "Number"; readonly value: number }
  | { readonly _tag: "Place"; readonly place: Place }
  | { readonly _tag: "Port"; readonly port: Port }
  | { readonly _tag: "Interface"; readonly name: string | undefined }
  | { readonly _tag: "Concat"; readonly fields: ReadonlyArray<Field> }
  | { readonly _tag: "Either"; readonly fields: ReadonlyArray<Field> }
  | { readonly _tag: "Foreign" }
  | { readonly _tag: "Unknown" }

const foreign: Field = { _tag: "Foreign" }
const unknown: Field = { _tag: "Unknown" }
const words = (...all: ReadonlyArray<string>): Field => ({ _tag: "Words", words: all })

/** `either` is not an expression of nft's: any of several fields may have the value. */
export const fieldOf = (expression: unknown, packet: Packet): Field => {
  const { payload, meta, ct, fib, concat, either, "&": and } = record(expression)
  if (payload !== undefined) return payloadField(record(payload), packet)
  if (meta !== undefined) return metaField(String(record(meta)["key"]), packet)
  if (ct !== undefined) return ctField(record(ct), packet)
  if (fib !== undefined) return fibField(record(fib), packet)
  const fields = list(concat ?? either).map((part) => fieldOf(part, packet))
  if (either !== undefined) return { _tag: "Either", fields }
  if (concat !== undefined)
    return fields.some(({ _tag }) => _tag === "Foreign") ? foreign : { _tag: "Concat", fields }
  return Array.isArray(and) ? masked(fieldOf(and[0], packet), and[1]) : unknown
}

/**
 * Whether the packet's field equals the value or is one of the values. `in` tests whether any of these flags is
 * set.
 */
export const holds = (field: Field, operator: string, value: unknown, packet: Packet, sets: Sets): Match => {
  if (field._tag === "Foreign") return "no"
  switch (operator) {
    case "==":
    case "in":
      return equals(field, value, operator, packet, sets)
    case "!=":
      return not(equals(field, value, "==", packet, sets))
    default:
      return field._tag === "Port" || field._tag === "Number"
        ? compares(field, operator, Number(value))
        : "unknown"
  }
}

const equals = (field: Field, value: unknown, operator: string, packet: Packet, sets: Sets): Match => {
  const among = (elements: ReadonlyArray<unknown>) =>
    some(elements.map((element) => equals(field, keyOf(element), operator, packet, sets)))
  if (field._tag === "Unknown") return "unknown"
  if (field._tag === "Either")
    return some(field.fields.map((one) => equals(one, value, operator, packet, sets)))
  if (value === "*") return "yes"
  if (typeof value === "string" && value.startsWith("@")) {
    const elements = sets(value.slice(1))
    return elements === undefined ? "unknown" : among(elements)
  }
  const { set, concat, elem } = record(value)
  if (elem !== undefined) return among([value])
  if (Array.isArray(set)) return among(set)
  if (field._tag === "Concat")
    return Array.isArray(concat)
      ? every(field.fields.map((part, index) => equals(part, concat[index], operator, packet, sets)))
      : "unknown"
  return single(field, value, operator, packet)
}

const single = (field: Field, value: unknown, operator: string, packet: Packet): Match => {
  switch (field._tag) {
    case "Words": {
      const wanted = [value].flat().map(String)
      const common = field.words.filter((word) => wanted.includes(word)).length
      // Several flags match exactly that set.
      return operator !== "in" && Array.isArray(value)
        ? is(common === wanted.length && common === field.words.length)
        : is(common > 0)
    }
    case "Number":
    case "Port": {
      const [first, last] = rangeOf(value)
      return Number.isNaN(first) ? "unknown" : isWithin(field, first, last)
    }
    case "Interface":
      return isInterface(field.name, String(value))
    case "Place": {
      const bounds = networkOf(value)
      return bounds === undefined
        ? "unknown"
        : isPlaceWithin(field.place, packet.family, bounds.first, bounds.last)
    }
    default:
      return "unknown"
  }
}

type Numeric = Extract<Field, { readonly _tag: "Port" | "Number" }>

const isWithin = (field: Numeric, first: number, last: number): Match =>
  field._tag === "Port"
    ? isPortWithin(field.port, first, last)
    : is(field.value >= first && field.value <= last)

const compares = (field: Numeric, operator: string, value: number): Match => {
  const least = operator === ">" ? value + 1 : operator === ">=" ? value : 0
  const most = operator === "<" ? value - 1 : operator === "<=" ? value : 0xffff_ffff
  return isWithin(field, least, most)
}

/** An element of a set may be wrapped together with its properties, such as a comment or a counter. */
export const keyOf = (element: unknown): unknown => {
  const { elem } = record(element)
  return elem === undefined ? element : record(elem)["val"]
}

const payloadField = ({ protocol, field }: Json, packet: Packet): Field => {
  const family = packet.family === 4 ? "ip" : "ip6"
  switch (protocol) {
    case "ip":
    case "ip6":
      if (protocol !== family) return foreign
      if (field === "saddr") return { _tag: "Place", place: packet.source }
      if (field === "daddr") return { _tag: "Place", place: packet.destination }
      if (field === "protocol" || field === "nexthdr") return transport(packet)
      return unknown
    case "tcp":
    case "udp":
    case "sctp":
    case "th":
      if (protocol !== "th" && protocol !== packet.protocol) return foreign
      if (field === "sport") return { _tag: "Port", port: packet.sourcePort }
      if (field === "dport") return { _tag: "Port", port: packet.destinationPort }
      if (field === "flags") return words(packet.state === "new" ? "syn" : "ack")
      return unknown
    case "ether":
    case "vlan":
      return unknown
    default:
      return foreign
  }
}

const metaField = (key: string, packet: Packet): Field => {
  switch (key) {
    case "iif":
    case "iifname":
      return { _tag: "Interface", name: packet.iif }
    case "oif":
    case "oifname":
      return { _tag: "Interface", name: packet.oif }
    case "l4proto":
      return transport(packet)
    case "nfproto":
      return words(packet.family === 4 ? "ipv4" : "ipv6")
    case "protocol":
      return words(packet.family === 4 ? "ip" : "ip6")
    case "pkttype":
      return words("host", "unicast")
    case "mark":
      return packet.mark === undefined ? unknown : { _tag: "Number", value: packet.mark }
    default:
      return unknown
  }
}

const ctField = ({ key, dir, family }: Json, packet: Packet): Field => {
  const name = String(key).replace(/^ip6? /, "")
  switch (name) {
    case "state":
      return words(packet.state)
    case "status":
      return words(...(packet.redirected ? ["dnat"] : []), ...(packet.state === "new" ? [] : ["seen-reply"]))
    case "direction":
      return words(packet.direction)
    case "mark":
      return { _tag: "Number", value: 0 }
    case "protocol":
      return transport(packet)
    case "daddr":
      if (dir !== "original") return unknown
      if ((String(key).startsWith("ip6") || family === "ip6") !== (packet.family === 6)) return foreign
      return { _tag: "Place", place: packet.original.destination }
    case "proto-dst":
      return dir === "original" ? { _tag: "Port", port: packet.original.port } : unknown
    default:
      return unknown
  }
}

/** Assumes that the route back to a source uses the interface that its packets came in on. */
const fibField = ({ result, flags }: Json, packet: Packet): Field => {
  const of = [flags].flat()
  if (result === "type" && of.includes("daddr")) return words(packet.toHost ? "local" : "unicast")
  if (result === "oif" && of.includes("saddr")) return words("true")
  return unknown
}

const transport = ({ protocol }: Packet): Field => words(protocol, String(protocolNumber[protocol]))

const masked = (field: Field, mask: unknown): Field => {
  if (field._tag === "Words" && Array.isArray(mask))
    return words(...field.words.filter((word) => mask.includes(word)))
  if (field._tag === "Number" && typeof mask === "number")
    return { _tag: "Number", value: (field.value & mask) >>> 0 }
  return field._tag === "Foreign" ? foreign : unknown
}

/** The mark that an expression sets; `undefined` if it is unknown. */
export const markOf = (expression: unknown, packet: Packet): number | undefined => {
  if (typeof expression === "number") return expression
  const { meta, "&": and, "|": or, "^": xor } = record(expression)
  if (meta !== undefined) return record(meta)["key"] === "mark" ? packet.mark : undefined
  const [left, right] = list(and ?? or ?? xor).map((part) => markOf(part, packet))
  if (left === undefined || right === undefined) return undefined
  return (and !== undefined ? left & right : or !== undefined ? left | right : left ^ right) >>> 0
}

const rangeOf = (value: unknown): readonly [number, number] => {
  const { range } = record(value)
  if (Array.isArray(range)) return [Number(range[0]), Number(range[1])]
  return [Number(value), Number(value)]
}

const networkOf = (value: unknown) => {
  const { range, prefix } = record(value)
  if (Array.isArray(range)) return boundsOf(String(range[0]), String(range[1]))
  const { addr, len } = record(prefix)
  const network = parseNetwork(prefix === undefined ? String(value) : `${addr}/${len}`)
  if (Result.isFailure(network)) return undefined
  const [first, last] = [IpNetwork.firstAddress(network.success), IpNetwork.lastAddress(network.success)]
  return boundsOf(NetAddress.formatIp(first), NetAddress.formatIp(last))
}

const boundsOf = (from: string, to: string) => {
  const [first, last] = [parseAddress(from), parseAddress(to)]
  return Result.isSuccess(first) && Result.isSuccess(last)
    ? { first: first.success.octets, last: last.success.octets }
    : undefined
}

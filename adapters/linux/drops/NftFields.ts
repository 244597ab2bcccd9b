/**
 * What an expression of nft's JSON (libnftables-json(5)) says of a packet, and whether that is among the values it is
 * compared with.
 */
import { Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import { parseAddress, parseNetwork } from "../../../src/protocol/Address.ts"
import { protocolNumber } from "../../../src/protocol/Protocol.ts"
import { type Answer, every, is, not, some } from "./Answer.ts"
import { isInterface, isPlaceWithin, isPortWithin, type Packet, type Place, type Port } from "./Packet.ts"

/** `Foreign`: the packet has no such thing, and the rule does not match. */
export type Field =
  | { readonly _tag: "Words"; readonly words: ReadonlyArray<string> }
  | { readonly _tag: "Number"; readonly value: number }
  | { readonly _tag: "Place"; readonly place: Place }
  | { readonly _tag: "Port"; readonly port: Port }
  | { readonly _tag: "Interface"; readonly name: string | undefined }
  | { readonly _tag: "Concat"; readonly fields: ReadonlyArray<Field> }
  | { readonly _tag: "Foreign" }
  | { readonly _tag: "Unknown" }

/** The elements of a named set, as JSON. */
export type Sets = (name: string) => ReadonlyArray<unknown> | undefined

const foreign: Field = { _tag: "Foreign" }
const unknown: Field = { _tag: "Unknown" }
const words = (...all: ReadonlyArray<string>): Field => ({ _tag: "Words", words: all })

export const fieldOf = (expression: unknown, packet: Packet): Field => {
  const { payload, meta, ct, fib, concat, "&": and } = record(expression)
  if (payload !== undefined) return payloadField(record(payload), packet)
  if (meta !== undefined) return metaField(String(record(meta)["key"]), packet)
  if (ct !== undefined) return ctField(record(ct), packet)
  if (fib !== undefined) return fibField(record(fib), packet)
  if (Array.isArray(concat)) {
    const fields = concat.map((part) => fieldOf(part, packet))
    return fields.some(({ _tag }) => _tag === "Foreign") ? foreign : { _tag: "Concat", fields }
  }
  if (Array.isArray(and)) return masked(fieldOf(and[0], packet), and[1])
  return unknown
}

/** Whether the packet's field is the value, or one of them. `in` asks whether flags have one of these. */
export const holds = (field: Field, operator: string, value: unknown, packet: Packet, sets: Sets): Answer => {
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

const equals = (field: Field, value: unknown, operator: string, packet: Packet, sets: Sets): Answer => {
  if (field._tag === "Unknown") return "unknown"
  if (value === "*") return "yes"
  if (typeof value === "string" && value.startsWith("@")) {
    const elements = sets(value.slice(1))
    return elements === undefined
      ? "unknown"
      : some(elements.map((element) => equals(field, keyOf(element), operator, packet, sets)))
  }
  const { set, concat, elem } = record(value)
  if (elem !== undefined) return equals(field, keyOf(value), operator, packet, sets)
  if (Array.isArray(set))
    return some(set.map((element) => equals(field, keyOf(element), operator, packet, sets)))
  switch (field._tag) {
    case "Concat":
      return Array.isArray(concat)
        ? every(field.fields.map((part, index) => equals(part, concat[index], operator, packet, sets)))
        : "unknown"
    case "Words": {
      const wanted = [value].flat().map(String)
      const common = field.words.filter((word) => wanted.includes(word)).length
      return is(
        operator === "in"
          ? common > 0
          : Array.isArray(value)
            ? common === wanted.length && common === field.words.length
            : common > 0
      )
    }
    case "Number": {
      const [first, last] = rangeOf(value)
      return Number.isNaN(first) ? "unknown" : is(field.value >= first && field.value <= last)
    }
    case "Port": {
      const [first, last] = rangeOf(value)
      return Number.isNaN(first) ? "unknown" : isPortWithin(field.port, first, last)
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

const compares = (
  field: Extract<Field, { readonly _tag: "Port" | "Number" }>,
  operator: string,
  value: number
): Answer => {
  const least = operator === ">" ? value + 1 : operator === ">=" ? value : 0
  const most = operator === "<" ? value - 1 : operator === "<=" ? value : 0xffff_ffff
  return field._tag === "Port"
    ? isPortWithin(field.port, least, most)
    : is(field.value >= least && field.value <= most)
}

/** An element of a set may be wrapped with what is said of it, such as a comment or a counter. */
const keyOf = (element: unknown): unknown => {
  const { elem } = record(element)
  return elem === undefined ? element : record(elem)["val"]
}

const payloadField = ({ protocol, field }: Record<string, unknown>, packet: Packet): Field => {
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

const ctField = ({ key, dir, family }: Record<string, unknown>, packet: Packet): Field => {
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

/** The way back to a source is assumed to be the one it came by. */
const fibField = ({ result, flags }: Record<string, unknown>, packet: Packet): Field => {
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

/** The mark that an expression sets; `undefined` where it can't be told. */
export const markOf = (expression: unknown, packet: Packet): number | undefined => {
  if (typeof expression === "number") return expression
  const { meta, "&": and, "|": or, "^": xor } = record(expression)
  if (meta !== undefined) return record(meta)["key"] === "mark" ? packet.mark : undefined
  const operands = [and, or, xor].find((parts) => Array.isArray(parts)) as ReadonlyArray<unknown> | undefined
  const [left, right] = (operands ?? []).map((part) => markOf(part, packet))
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
  if (prefix !== undefined) {
    const { addr, len } = record(prefix)
    return networkBounds(`${addr}/${len}`)
  }
  return boundsOf(String(value), String(value))
}

/** `undefined` where the text is no network. */
export const networkBounds = (text: string) => {
  const network = parseNetwork(text)
  if (Result.isFailure(network)) return undefined
  const first = NetAddress.formatIp(IpNetwork.firstAddress(network.success))
  return boundsOf(first, NetAddress.formatIp(IpNetwork.lastAddress(network.success)))
}

const boundsOf = (from: string, to: string) => {
  const [first, last] = [parseAddress(from), parseAddress(to)]
  return Result.isSuccess(first) && Result.isSuccess(last)
    ? { first: first.success.octets, last: last.success.octets }
    : undefined
}

export const record = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {}

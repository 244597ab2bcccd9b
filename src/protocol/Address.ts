/**
 * An IPv4 or IPv6 address of a frontend or a backend, as Go's `netip.Addr` understands it.
 *
 * Effect (`effect/net/NetAddress`) parses and formats. This file adds what the protocol needs beyond that: the
 * zone, the text to answer with, and the rule that an IPv4-mapped address is the IPv4 address.
 */
import { Result, Schema } from "effect"
import { IpNetwork, NetAddress } from "effect/net"

export type Family = 4 | 6

/**
 * `text` is the address as answers carry it, in Go's canonical form (an IPv4-mapped address keeps its `::ffff:`).
 * `family`, `octets` (4 or 16, network order) and `key` are those of the IPv4 address where `text` is IPv4-mapped.
 * Two addresses are the same address exactly when their keys are equal.
 */
export interface Address {
  readonly text: string
  readonly family: Family
  readonly octets: Uint8Array
  readonly zone: string
  readonly key: string
}

export const notAnAddress = "not an IPv4 or IPv6 address"

/** Parses an address. The failure is the reason as a phrase to append to the text. */
export const parseAddress = (text: string): Result.Result<Address, string> => {
  const known = lately.get(text)
  if (known !== undefined) return known
  const parsed = parse(text)
  if (Result.isSuccess(parsed)) {
    if (lately.size === maxLately) lately.clear()
    lately.set(text, parsed)
  }
  return parsed
}

/** A cache: calls repeat the same few addresses, and an `Address` is immutable. */
const lately = new Map<string, Result.Result<Address, string>>()
const maxLately = 256

const parse = (text: string): Result.Result<Address, string> => {
  const percent = text.indexOf("%")
  const bare = percent === -1 ? text : text.slice(0, percent)
  const zone = percent === -1 ? "" : text.slice(percent + 1)
  if (percent !== -1 && zone === "") return Result.fail("the zone after % is empty")
  if (percent !== -1 && !bare.includes(":")) return Result.fail("only an IPv6 address has a zone")
  return Result.match(NetAddress.ipFromString(bare), {
    onFailure: () => Result.fail(notAnAddress),
    onSuccess: (ip) => Result.succeed(fromIp(ip, zone))
  })
}

/**
 * Parses `ADDRESS/LENGTH`, or an address alone, as a network; the failure is the reason. A network of IPv4-mapped
 * addresses becomes the IPv4 network: no packet carries a mapped address.
 */
export const parseNetwork = (text: string): Result.Result<IpNetwork.IpNetwork, string> =>
  Result.mapBoth(
    IpNetwork.fromString(text.includes("/") ? text : `${text}/${text.includes(":") ? 128 : 32}`),
    { onFailure: ({ message }) => message, onSuccess: unmapped }
  )

/**
 * A mapped address has 96 bits before those of the IPv4 address, so a shorter prefix is not a network of mapped
 * addresses.
 */
const unmapped = (network: IpNetwork.IpNetwork): IpNetwork.IpNetwork => {
  const address = NetAddress.toCanonical(network.address)
  return NetAddress.isIpv4Address(address) && NetAddress.isIpv6Address(network.address)
    ? IpNetwork.makeUnsafe(address, network.prefixLength - 96)
    : network
}

/** For addresses written in source; throws where the text is not an address. */
export const addressUnsafe = (text: string): Address =>
  Result.getOrThrowWith(parseAddress(text), (reason) => new Error(`${text}: ${reason}`))

/** The address with these octets, 4 or 16 of them in network order. */
export const fromOctets = (octets: Uint8Array): Address => fromIp(ipOf(octets), "")

const ipOf = (octets: Uint8Array): NetAddress.IpAddress =>
  octets.length === 4 ? NetAddress.ipv4FromBytesUnsafe(octets) : NetAddress.ipv6FromBytesUnsafe(octets)

export const octetsOf = (ip: NetAddress.IpAddress): Uint8Array =>
  Uint8Array.from(NetAddress.isIpv4Address(ip) ? NetAddress.ipv4ToOctets(ip) : NetAddress.ipv6ToOctets(ip))

export const networkOf = (octets: Uint8Array, prefixLength: number): IpNetwork.IpNetwork =>
  IpNetwork.fromAddressUnsafe(ipOf(octets), prefixLength)

/** Whether one of the networks contains the address with these octets. */
export const isWithin = (networks: ReadonlyArray<IpNetwork.IpNetwork>, octets: Uint8Array): boolean => {
  const ip = ipOf(octets)
  return networks.some((network) => IpNetwork.contains(network, ip))
}

export const unspecified = (family: Family): Address => (family === 4 ? unspecified4 : unspecified6)

export const isUnspecified = (address: Address): boolean => address.octets.every((octet) => octet === 0)

/** 127.0.0.0/8 and ::1. */
export const isLoopback = ({ family, octets }: Pick<Address, "family" | "octets">): boolean =>
  family === 4 ? octets[0] === 127 : octets[15] === 1 && octets.subarray(0, 15).every((octet) => octet === 0)

/** 169.254.0.0/16 and fe80::/10. */
export const isLinkLocal = ({ family, octets }: Address): boolean =>
  family === 4
    ? octets[0] === 169 && octets[1] === 254
    : octets[0] === 0xfe && ((octets[1] ?? 0) & 0xc0) === 0x80

/** 224.0.0.0/4, ff00::/8 and 255.255.255.255: addresses that no connection can be made to. */
export const isMulticastOrBroadcast = ({ family, octets }: Address): boolean => {
  const first = octets[0] ?? 0
  if (family === 6) return first === 0xff
  return (first >= 224 && first <= 239) || octets.every((octet) => octet === 255)
}

/** The address as written before a port: IPv6 in brackets. */
export const hostText = (address: Address): string =>
  address.text.includes(":") ? `[${address.text}]` : address.text

/** Whether `holder` equals `address` or is the unspecified address of its family. */
export const covers = (holder: Address, address: Address): boolean =>
  holder.key === address.key || (holder.family === address.family && isUnspecified(holder))

export const Address: Schema.declare<Address> = Schema.declare(
  (value: unknown): value is Address =>
    typeof value === "object" && value !== null && "octets" in value && "key" in value,
  { expected: "an IP address" }
)

const fromIp = (ip: NetAddress.IpAddress, zone: string): Address => {
  const text = NetAddress.formatIp(ip)
  return zone === "" ? shared(text, () => make(ip, text, "")) : make(ip, text, zone)
}

/**
 * Addresses by their text. Ten thousand ports of a host or a container then share one `Address` of 350 bytes.
 * Addresses with a zone are not cached, since a zone can be any text.
 */
const known = new Map<string, Address>()
const maxKnown = 1024

const shared = (text: string, make: () => Address): Address => {
  const before = known.get(text)
  if (before !== undefined) return before
  const address = make()
  if (known.size >= maxKnown) known.clear()
  known.set(text, address)
  return address
}

const make = (ip: NetAddress.IpAddress, text: string, zone: string): Address => {
  const meant = NetAddress.toCanonical(ip)
  const suffix = zone === "" ? "" : `%${zone}`
  return {
    text: text + suffix,
    family: NetAddress.isIpv4Address(meant) ? 4 : 6,
    octets: octetsOf(meant),
    zone,
    key: NetAddress.formatIp(meant) + suffix
  }
}

const unspecified4 = fromIp(NetAddress.ipv4Unspecified, "")
const unspecified6 = fromIp(NetAddress.ipv6Unspecified, "")

/** `struct sockaddr_in`, `sockaddr_in6` and `sockaddr_un`, as ip(7), ipv6(7) and unix(7) lay them out. */
import { type Address, fromOctets } from "../../../src/protocol/Address.ts"
import type { Endpoint } from "../../../src/protocol/PortBinding.ts"
import { AF_INET, AF_INET6, AF_UNIX, hostLittleEndian, int32, type Libc } from "../Libc.ts"

const sizeOfIpv4 = 16
export const sizeOfIpv6 = 28

/** The family and the scope in host order, the port in network order. */
export const socketAddress = (host: Address, port: number, scope: number): Uint8Array => {
  const bytes = new Uint8Array(host.family === 4 ? sizeOfIpv4 : sizeOfIpv6)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, host.family === 4 ? AF_INET : AF_INET6, hostLittleEndian)
  view.setUint16(2, port)
  bytes.set(host.octets, host.family === 4 ? 4 : 8)
  if (host.family === 6) view.setUint32(24, scope, hostLittleEndian)
  return bytes
}

/** The address and port of an IPv4 or IPv6 socket; `undefined` for another family. */
export const boundTo = (libc: Libc, fd: number): Endpoint | undefined => {
  const bytes = new Uint8Array(sizeOfIpv6)
  const view = new DataView(bytes.buffer)
  if (libc.getsockname(fd, bytes, int32(bytes.length)) < 0) return undefined
  const family = view.getUint16(0, hostLittleEndian)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const octets = family === AF_INET ? bytes.slice(4, 8) : bytes.slice(8, 24)
  return { address: fromOctets(octets), port: view.getUint16(2) }
}

/** `sizeof(sockaddr_un.sun_path)`. */
const maxNameBytes = 108

/** A path, or a name in the abstract namespace if it begins with a zero byte; `undefined` if it is too long. */
export const unixAddress = (path: string): Uint8Array | undefined => {
  const name = new TextEncoder().encode(path)
  if (name.length >= maxNameBytes) return undefined
  const bytes = new Uint8Array(2 + name.length + (name[0] === 0 ? 0 : 1))
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, hostLittleEndian)
  bytes.set(name, 2)
  return bytes
}

/**
 * The index of the interface that an address's zone identifies, by name or by number: 0 without a zone, negative if
 * there is no such interface.
 */
export const scopeOf = (libc: Libc, { zone }: Address): number => {
  if (zone === "") return 0
  return /^[1-9]\d*$/.test(zone) ? Number(zone) : libc.ifNameToIndex(new TextEncoder().encode(`${zone}\0`))
}

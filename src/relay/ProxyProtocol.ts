/**
 * The header that gives a backend the client's address: the PROXY protocol, versions 1 and 2, for TCP
 * (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, sections 2.1 and 2.2). Only the sender's side.
 */

/** `octets` are 4 or 16, in network order; both ends of a connection have the same number. */
export interface Peer {
  readonly octets: Uint8Array
  readonly port: number
}

/** At most 104 bytes. */
export const proxyHeader = (version: "v1" | "v2", source: Peer, destination: Peer): Uint8Array =>
  version === "v1" ? textHeader(source, destination) : binaryHeader(source, destination)

const textHeader = (source: Peer, destination: Peer): Uint8Array => {
  const family = source.octets.length === 4 ? "TCP4" : "TCP6"
  const addresses = `${addressText(source.octets)} ${addressText(destination.octets)}`
  return new TextEncoder().encode(`PROXY ${family} ${addresses} ${source.port} ${destination.port}\r\n`)
}

/** RFC 5952: nginx passes the address on as written, and other programs compare and log it. */
const addressText = (octets: Uint8Array): string => {
  if (octets.length === 4) return octets.join(".")
  const groups: Array<number> = []
  for (let at = 0; at < 16; at += 2) groups.push(((octets[at] ?? 0) << 8) | (octets[at + 1] ?? 0))
  let [start, length] = [0, 1]
  for (let from = 0; from < 8; from++) {
    let end = from
    while (groups[end] === 0) end++
    if (end - from > length) [start, length] = [from, end - from]
  }
  const text = (some: ReadonlyArray<number>) => some.map((group) => group.toString(16)).join(":")
  return length === 1
    ? text(groups)
    : `${text(groups.slice(0, start))}::${text(groups.slice(start + length))}`
}

const signature = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]
const VERSION_2_PROXY = 0x21
const TCP_OVER_IPV4 = 0x11
const TCP_OVER_IPV6 = 0x21

const binaryHeader = (source: Peer, destination: Peer): Uint8Array => {
  const width = source.octets.length
  const header = new Uint8Array(16 + width * 2 + 4)
  const view = new DataView(header.buffer)
  header.set(signature)
  header[12] = VERSION_2_PROXY
  header[13] = width === 4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6
  view.setUint16(14, width * 2 + 4)
  header.set(source.octets, 16)
  header.set(destination.octets, 16 + width)
  view.setUint16(16 + width * 2, source.port)
  view.setUint16(18 + width * 2, destination.port)
  return header
}

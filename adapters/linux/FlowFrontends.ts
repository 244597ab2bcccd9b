/** Which flows do not go where their frontend leads now. Pure: flows are as the kernel told them, addresses are asked for. */
import { IpNetwork, NetAddress } from "effect/net"
import type { FlowFrontend } from "../../src/firewall/Conntrack.ts"
import { isLoopback, isUnspecified } from "../../src/protocol/Address.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"
import { type Flow, IPS_DST_NAT, IPS_SEEN_REPLY, NFPROTO_IPV4 } from "./ConntrackMessages.ts"
import type { IsLocal } from "./LocalAddresses.ts"

/** Whether a flow is to one of these frontends, and does not go where that one leads. */
export const staleAmong = (
  frontends: ReadonlyArray<FlowFrontend>,
  isLocal: IsLocal
): ((flow: Flow) => boolean) => {
  const keyOf = (protocol: number, port: number) => protocol * 65536 + port
  const byPort = Map.groupBy(frontends, ({ protocol, port }) => keyOf(protocolNumber[protocol], port))
  return (flow) => {
    const there = byPort.get(keyOf(flow.original.protocol, flow.original.destinationPort))
    return there?.some((frontend) => isTo(frontend, flow, isLocal) && isStale(frontend, flow)) ?? false
  }
}

const isTo = (
  { host }: FlowFrontend,
  { family: number, original: { source, destination } }: Flow,
  isLocal: IsLocal
): boolean => {
  const family = number === NFPROTO_IPV4 ? 4 : 6
  if (host.family !== family) return false
  if (!isUnspecified(host)) return sameOctets(host.octets, destination)
  if (isLoopback({ family, octets: destination }) || isLoopback({ family, octets: source })) return false
  return isLocal(destination)
}

const isStale = ({ protocol, backend, allow }: FlowFrontend, { original, reply, status }: Flow): boolean => {
  if (protocol !== "udp") return (status & (IPS_SEEN_REPLY | IPS_DST_NAT)) === 0
  if (backend === undefined) return true
  if (reply.sourcePort !== backend.port || !sameOctets(reply.source, backend.address.octets)) return true
  return allow !== undefined && !isAllowed(allow, original.source)
}

const isAllowed = (allow: ReadonlyArray<IpNetwork.IpNetwork>, source: Uint8Array): boolean => {
  const address =
    source.length === 4 ? NetAddress.ipv4FromBytesUnsafe(source) : NetAddress.ipv6FromBytesUnsafe(source)
  return allow.some((network) => IpNetwork.contains(network, address))
}

const sameOctets = (one: Uint8Array, other: Uint8Array): boolean =>
  one.length === other.length && one.every((octet, at) => octet === other[at])

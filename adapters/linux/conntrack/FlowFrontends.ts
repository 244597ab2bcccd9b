/**
 * Which flows don't go where their frontend redirects now. Pure: the caller passes the flows as the kernel reported
 * them, and the host's addresses.
 */
import type { FlowFrontend } from "../../../src/firewall/Conntrack.ts"
import { isLoopback, isUnspecified, isWithin } from "../../../src/protocol/Address.ts"
import { protocolNumber } from "../../../src/protocol/Protocol.ts"
import type { IsLocal } from "../netlink/LocalAddresses.ts"
import { type Flow, IPS_DST_NAT, IPS_SEEN_REPLY, NFPROTO_IPV4 } from "./ConntrackMessages.ts"

/** `refused`: its source was allowed until now, so neither end may resume it. */
export type Stale = "stale" | "refused"

/** Whether a flow is to one of these frontends and does not go to that frontend's backend. */
export const staleAmong = (
  frontends: ReadonlyArray<FlowFrontend>,
  isLocal: IsLocal
): ((flow: Flow) => Stale | undefined) => {
  const byPort = Map.groupBy(frontends, portKey)
  return (flow) => {
    const there = byPort.get(portKeyOfFlow(flow)) ?? []
    const own = there.filter((frontend) => isTo(frontend, flow, isLocal))
    if (own.some((frontend) => isRefused(frontend, flow))) return "refused"
    return own.some((frontend) => isStale(frontend, flow)) ? "stale" : undefined
  }
}

/** Protocol and port in one number. */
export const portKey = ({ protocol, port }: FlowFrontend): number => protocolNumber[protocol] * 65536 + port

/** `portKey` of the frontend that a flow is to. */
export const portKeyOfFlow = ({ original }: Flow): number =>
  original.protocol * 65536 + original.destinationPort

const isRefused = ({ narrowed, allow }: FlowFrontend, { original, status }: Flow): boolean =>
  narrowed && (status & IPS_DST_NAT) !== 0 && !isAllowed(allow, original.source)

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

const isStale = (frontend: FlowFrontend, { isReset, original, reply, status }: Flow): boolean => {
  const { protocol, backend, allow, narrowed, share } = frontend
  if (narrowed) return false
  const isRedirected = (status & IPS_DST_NAT) !== 0
  const isToBackend =
    backend !== undefined &&
    reply.sourcePort === backend.port &&
    sameOctets(reply.source, backend.address.octets)
  if (share === "left") return protocol === "udp" && isToBackend
  const isElsewhere = share === "joined" ? !isRedirected : backend !== undefined && !isToBackend
  // The kernel keeps a reset connection for ten seconds, and lets a new one from the same port go the same way.
  if (protocol !== "udp") return isRedirected ? isElsewhere : isReset || (status & IPS_SEEN_REPLY) === 0
  return backend === undefined || isElsewhere || !isAllowed(allow, original.source)
}

const isAllowed = (allow: FlowFrontend["allow"], source: Uint8Array): boolean =>
  allow === undefined || isWithin(allow, source)

export const sameOctets = (one: Uint8Array, other: Uint8Array): boolean =>
  one.length === other.length && one.every((octet, at) => octet === other[at])

/**
 * The transport protocols a port can be published for. The wire carries their IANA protocol numbers
 * (https://www.iana.org/assignments/protocol-numbers).
 */
import { Schema } from "effect"

export const Protocol = Schema.Literals(["tcp", "udp", "sctp"])
export type Protocol = typeof Protocol.Type

export const protocolNumber = { tcp: 6, udp: 17, sctp: 132 } as const satisfies Record<Protocol, number>

/** The protocol of an IANA number, or `undefined` for a protocol without ports to publish. */
export const protocolOfNumber = (number: number): Protocol | undefined => byNumber.get(number)

const byNumber = new Map<number, Protocol>(
  Protocol.literals.map((protocol) => [protocolNumber[protocol], protocol])
)

/** Flows added to the kernel's table without a packet, as many as wanted, and read back as text. */
import { Effect, Result } from "effect"
import { NFNL_SUBSYS_CTNETLINK, readFlow } from "../../adapters/linux/conntrack/ConntrackMessages.ts"
import { libc } from "../../adapters/linux/Libc.ts"
import { type Batch, NETLINK_NETFILTER, openNetlink } from "../../adapters/linux/netlink/Netlink.ts"
import { NLM_F_CREATE } from "../../adapters/linux/netlink/NetlinkMessage.ts"
import { addressUnsafe, fromOctets, hostText } from "../../src/protocol/Address.ts"
import { type Protocol, protocolNumber, protocolOfNumber } from "../../src/protocol/Protocol.ts"

export interface FlowSpec {
  readonly protocol: Protocol
  readonly source: string
  readonly sourcePort: number
  readonly destination: string
  readonly port: number
  /** The backend of the redirection. */
  readonly backend?: { readonly address: string; readonly port: number }
  readonly replied?: boolean
  readonly zone?: number
}

const IPCTNL_MSG_CT_NEW = 0
const IPCTNL_MSG_CT_GET = 1
const seenReply = 1 << 1
const confirmed = 1 << 3
const destinationNat = 1 << 5

/** `udp 10.1.0.2:5000 192.0.2.1:53 10.0.0.2:53`: source, destination, and the backend if there is one. */
export const flow = (text: string, more: Pick<FlowSpec, "replied" | "zone"> = {}): FlowSpec => {
  const [protocol, source, destination, backend] = text.split(" ")
  const end = (part = "") => {
    const colon = part.lastIndexOf(":")
    return { address: part.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(part.slice(colon + 1)) }
  }
  return {
    protocol: protocol as Protocol,
    source: end(source).address,
    sourcePort: end(source).port,
    destination: end(destination).address,
    port: end(destination).port,
    ...(backend === undefined ? {} : { backend: end(backend) }),
    ...more
  }
}

/** Throws where the kernel refuses one. */
export const createFlows = (specs: Iterable<FlowSpec>): void => {
  const netlink = Result.getOrThrow(openNetlink(libc(), NETLINK_NETFILTER))
  const write = (specified: ReadonlyArray<FlowSpec>) => {
    const refused = Result.getOrThrow(
      netlink.series(NFNL_SUBSYS_CTNETLINK, (series) => {
        for (const spec of specified) writeFlow(series, spec)
      })
    )
    const [first] = refused
    if (first !== undefined)
      throw new Error(`${refused.length} flows refused, the first with errno ${first.errno}`)
  }
  let chunk: Array<FlowSpec> = []
  for (const spec of specs) {
    chunk.push(spec)
    if (chunk.length === 500) {
      write(chunk)
      chunk = []
    }
  }
  write(chunk)
  netlink.close()
}

const writeFlow = ({ writer, begin }: Batch, spec: FlowSpec) => {
  const source = addressUnsafe(spec.source).octets
  const destination = addressUnsafe(spec.destination).octets
  const tuple = (type: number, from: Uint8Array, fromPort: number, to: Uint8Array, toPort: number) => {
    const outer = writer.beginNested(type)
    const ip = writer.beginNested(1)
    writer.attribute(from.length === 4 ? 1 : 3, from)
    writer.attribute(from.length === 4 ? 2 : 4, to)
    writer.endNested(ip)
    const proto = writer.beginNested(2)
    writer.uint8(1, protocolNumber[spec.protocol])
    writer.uint16(2, fromPort)
    writer.uint16(3, toPort)
    writer.endNested(proto)
    writer.endNested(outer)
  }
  begin(IPCTNL_MSG_CT_NEW, NLM_F_CREATE, source.length === 4 ? 2 : 10)
  tuple(1, source, spec.sourcePort, destination, spec.port)
  // Without the redirection, which the kernel applies itself.
  tuple(2, destination, spec.port, source, spec.sourcePort)
  if (spec.zone !== undefined) writer.uint16(18, spec.zone)
  writer.uint32(3, confirmed | (spec.replied === true ? seenReply : 0))
  writer.uint32(7, 600)
  if (spec.backend !== undefined) {
    const nat = writer.beginNested(13)
    const octets = addressUnsafe(spec.backend.address).octets
    writer.attribute(octets.length === 4 ? 1 : 4, octets)
    const range = writer.beginNested(3)
    writer.uint16(1, spec.backend.port)
    writer.uint16(2, spec.backend.port)
    writer.endNested(range)
    writer.endNested(nat)
  }
  writer.end()
}

/** Every flow of the namespace with ports, sorted, as `flow` reads them. */
export const listFlows: Effect.Effect<ReadonlyArray<string>> = Effect.sync(() => {
  const netlink = Result.getOrThrow(openNetlink(libc(), NETLINK_NETFILTER))
  const messages = Result.getOrThrow(
    netlink.dump({ subsystem: NFNL_SUBSYS_CTNETLINK, type: IPCTNL_MSG_CT_GET, family: 0, write: () => {} })
  )
  netlink.close()
  const end = (octets: Uint8Array, port: number) => `${hostText(fromOctets(octets.slice()))}:${port}`
  return messages
    .flatMap((message) => readFlow(message) ?? [])
    .map(({ original, reply, status }) =>
      [
        protocolOfNumber(original.protocol),
        end(original.source, original.sourcePort),
        end(original.destination, original.destinationPort),
        ...((status & destinationNat) === 0 ? [] : [end(reply.source, reply.sourcePort)])
      ].join(" ")
    )
    .sort()
})

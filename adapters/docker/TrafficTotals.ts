/**
 * The traffic of all mappings together, by protocol. A total never falls, as counters must not: what a mapping had
 * before it was unmapped stays in it. What it had after the last refresh is lost.
 */
import { type Context, Metric } from "effect"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { refusalReasons } from "../../src/protocol/Limits.ts"
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"

/** The families, which `MappingSamples` has for each mapping. */
export const trafficFamilies = {
  portmapper_connections_total: "New connections and flows to a mapping, redirected and relayed",
  portmapper_refused_total:
    "Packets, and relayed connections, that a mapping's allow-list or limits keep out, by reason: the label's name",
  portmapper_bytes_total:
    "Bytes to (in) and from (out) the backend of a mapping; redirected ones with net.netfilter.nf_conntrack_acct=1 alone"
}

type Family = keyof typeof trafficFamilies

/** Returns what adds the traffic since the last call, from a list of all mappings. */
export const trafficTotals = (
  context: Context.Context<never>
): ((mappings: ReadonlyArray<ListedMapping>) => void) => {
  let known = new Map<string, Counts>()
  return (mappings) => {
    const now = new Map<string, Counts>()
    for (const mapping of mappings) {
      const key = `${mapping.protocol} ${mapping.frontendIp} ${mapping.frontendPort} ${mapping.backendIp} ${mapping.backendPort}`
      const before = known.get(key)
      // A count that could not be read this time goes on from the last one.
      const counts = countsOf(mapping).map((count, index) => count ?? before?.[index])
      now.set(key, counts)
      const protocol = protocolOfNumber(mapping.protocol) ?? String(mapping.protocol)
      for (const [index, { family, attributes }] of counted.entries()) {
        const [count, last] = [counts[index], before?.[index] ?? 0]
        if (count === undefined) continue
        // A lower count is that of another mapping in its place.
        counterOf(family, { protocol, ...attributes }).updateUnsafe(
          count < last ? count : count - last,
          context
        )
      }
    }
    known = now
  }
}

/** In the order of `counted`. */
type Counts = ReadonlyArray<number | undefined>

const counted: ReadonlyArray<{
  readonly family: Family
  readonly attributes?: Readonly<Record<string, string>>
}> = [
  { family: "portmapper_connections_total" },
  ...refusalReasons.map(
    (reason) => ({ family: "portmapper_refused_total", attributes: { reason } }) as const
  ),
  { family: "portmapper_bytes_total", attributes: { direction: "in" } },
  { family: "portmapper_bytes_total", attributes: { direction: "out" } }
]

const countsOf = ({ connections, refused, bytesIn, bytesOut }: ListedMapping): Counts => [
  connections,
  ...refusalReasons.map((reason) => refused?.[reason]),
  bytesIn,
  bytesOut
]

const counterOf = (family: Family, attributes: Readonly<Record<string, string>>) =>
  Metric.withAttributes(
    Metric.counter(family, { description: trafficFamilies[family], incremental: true }),
    attributes
  )

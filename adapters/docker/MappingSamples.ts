/**
 * The traffic of each mapping as samples of `/metrics`: three counters with one or two lines for each mapping. What
 * the host does not count has no sample, as the format requires. Source:
 * prometheus.io/docs/instrumenting/exposition_formats.
 */
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"

export const mappingSamples = (mappings: ReadonlyArray<ListedMapping>): string =>
  [
    "# HELP portmapper_connections_total New connections and flows to a mapping, redirected and relayed",
    "# TYPE portmapper_connections_total counter",
    ...mappings.flatMap((mapping) =>
      sample("portmapper_connections_total", labelsOf(mapping), mapping.connections)
    ),
    "# HELP portmapper_refused_total Packets, and relayed connections, from sources that a mapping's allow-list keeps out",
    "# TYPE portmapper_refused_total counter",
    ...mappings.flatMap((mapping) => sample("portmapper_refused_total", labelsOf(mapping), mapping.refused)),
    "# HELP portmapper_bytes_total Bytes to (in) and from (out) the backend of a mapping; redirected ones with net.netfilter.nf_conntrack_acct=1 alone",
    "# TYPE portmapper_bytes_total counter",
    ...mappings.flatMap((mapping) => [
      ...sample("portmapper_bytes_total", `${labelsOf(mapping)},direction="in"`, mapping.bytesIn),
      ...sample("portmapper_bytes_total", `${labelsOf(mapping)},direction="out"`, mapping.bytesOut)
    ])
  ]
    .map((line) => `${line}\n`)
    .join("")

const sample = (name: string, labels: string, value: number | undefined): ReadonlyArray<string> =>
  value === undefined ? [] : [`${name}{${labels}} ${value}`]

/** Addresses and ports need no escaping. */
const labelsOf = ({ protocol, frontendIp, frontendPort, backendIp, backendPort }: ListedMapping): string =>
  `protocol="${protocolOfNumber(protocol) ?? protocol}",frontend="${endpoint(frontendIp, frontendPort)}",backend="${endpoint(backendIp, backendPort)}"`

const endpoint = (address: string, port: number): string =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`

/**
 * The traffic of each mapping as samples of `/metrics`: three counters with a few lines for each mapping. What
 * the host does not count has no sample, as the format requires. Source:
 * prometheus.io/docs/instrumenting/exposition_formats.
 */
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { refusalReasons } from "../../src/protocol/Limits.ts"
import { containerName, hasAddress } from "../../src/protocol/ListedText.ts"
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { trafficFamilies } from "./TrafficTotals.ts"

export const mappingSamples = (mappings: ReadonlyArray<ListedMapping>): string =>
  [
    ...head("portmapper_connections_total"),
    ...mappings.flatMap((mapping) =>
      sample("portmapper_connections_total", labelsOf(mapping), mapping.connections)
    ),
    ...head("portmapper_refused_total"),
    ...mappings.flatMap((mapping) =>
      refusalReasons.flatMap((reason) =>
        sample(
          "portmapper_refused_total",
          `${labelsOf(mapping)},reason="${reason}"`,
          mapping.refused?.[reason]
        )
      )
    ),
    ...head("portmapper_bytes_total"),
    ...mappings.flatMap((mapping) => [
      ...sample("portmapper_bytes_total", `${labelsOf(mapping)},direction="in"`, mapping.bytesIn),
      ...sample("portmapper_bytes_total", `${labelsOf(mapping)},direction="out"`, mapping.bytesOut)
    ])
  ]
    .map((line) => `${line}\n`)
    .join("")

const head = (family: keyof typeof trafficFamilies): ReadonlyArray<string> => [
  `# HELP ${family} ${trafficFamilies[family]}`,
  `# TYPE ${family} counter`
]

const sample = (name: string, labels: string, value: number | undefined): ReadonlyArray<string> =>
  value === undefined ? [] : [`${name}{${labels}} ${value}`]

/** A backend without an address, as one that is asleep, is named by its container. */
const labelsOf = (mapping: ListedMapping): string => {
  const { protocol, frontendIp, frontendPort, backendIp, backendPort, container } = mapping
  const backend =
    container === undefined || hasAddress(mapping) ? backendIp : escaped(containerName(container))
  return `protocol="${protocolOfNumber(protocol) ?? protocol}",frontend="${endpoint(frontendIp, frontendPort)}",backend="${endpoint(backend, backendPort)}"`
}

/** Addresses and ports need no escaping. A container's name may: a caller can set it by a label. */
const escaped = (text: string): string =>
  text.replace(/[\\"\n]/g, (each) => (each === "\n" ? "\\n" : `\\${each}`))

const endpoint = (address: string, port: number): string =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`

/** The cluster's part of the page `/metrics`, in Prometheus's text format. */
import type { ClusterStatus } from "../../src/cluster/ClusterPorts.ts"

export const clusterSamples = ({ counts, ...status }: ClusterStatus): string =>
  [
    gauge("granting", "Whether this host may give out ports of the cluster", status.mayGrant ? 1 : 0),
    gauge("lease_seconds", "How long this host's lease surely lives on", (status.leaseMillis ?? 0) / 1000),
    gauge("claims", "The ports that this host has claimed by their number", status.claims),
    gauge("blocks", "The blocks of ephemeral ports that this host has claimed", status.blocks),
    gauge("free_ports", "The free ports of these blocks", status.freeOfBlocks),
    gauge("hosts_claims", "What all hosts of the cluster have claimed: ports and blocks", status.claimsOfAll),
    gauge("watch_lag_seconds", "Since when nothing is heard of the others' claims", status.lagMillis / 1000),
    family("etcd_requests_total", "counter", "What etcd was asked, and how much of it may write", [
      ['{kind="write"}', counts.writes],
      ['{kind="read"}', counts.requests - counts.writes]
    ]),
    family(
      "etcd_failures_total",
      "counter",
      "What etcd failed to answer or refused, by reason",
      Object.entries(counts.failures).map(([reason, count]) => [`{reason="${reason.toLowerCase()}"}`, count])
    )
  ].join("")

const gauge = (name: string, help: string, value: number): string =>
  family(name, "gauge", help, [["", value]])

const family = (
  name: string,
  type: "gauge" | "counter",
  help: string,
  samples: ReadonlyArray<readonly [labels: string, value: number]>
): string =>
  [
    `# HELP portmapper_cluster_${name} ${help}\n# TYPE portmapper_cluster_${name} ${type}\n`,
    ...samples.map(([labels, value]) => `portmapper_cluster_${name}${labels} ${value}\n`)
  ].join("")

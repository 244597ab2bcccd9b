/** The cluster's part of the page `/metrics`, in Prometheus's text format. */
import type { ClusterStatus } from "../../src/cluster/ClusterPorts.ts"

interface Family {
  readonly name: string
  readonly type: "gauge" | "counter"
  readonly help: string
  readonly samples: ReadonlyArray<readonly [labels: string, value: number]>
}

export const clusterSamples = (status: ClusterStatus): string => familiesOf(status).map(familyText).join("")

const familiesOf = (status: ClusterStatus): ReadonlyArray<Family> => {
  const gauge = (name: string, help: string, value: number): Family => ({
    ...{ name: `portmapper_cluster_${name}`, type: "gauge" as const, help },
    samples: [["", value]]
  })
  return [
    gauge("granting", "Whether this host may give out ports of the cluster", status.mayGrant ? 1 : 0),
    gauge("lease_seconds", "How long this host's lease surely lives on", (status.leaseMillis ?? 0) / 1000),
    gauge("claims", "The ports that this host has claimed by their number", status.claims),
    gauge("blocks", "The blocks of ephemeral ports that this host has claimed", status.blocks),
    gauge("free_ports", "The free ports of these blocks", status.freeOfBlocks),
    gauge("hosts_claims", "What all hosts of the cluster have claimed: ports and blocks", status.claimsOfAll),
    gauge("watch_lag_seconds", "Since when nothing is heard of the others' claims", status.lagMillis / 1000),
    {
      name: "portmapper_cluster_etcd_requests_total",
      type: "counter",
      help: "What etcd was asked, and how much of it may write",
      samples: [
        ['{kind="write"}', status.counts.writes],
        ['{kind="read"}', status.counts.requests - status.counts.writes]
      ]
    },
    {
      name: "portmapper_cluster_etcd_failures_total",
      type: "counter",
      help: "What etcd failed to answer or refused, by reason",
      samples: Object.entries(status.counts.failures).map(([reason, count]) => [
        `{reason="${reason.toLowerCase()}"}`,
        count
      ])
    }
  ]
}

const familyText = ({ name, type, help, samples }: Family): string =>
  [
    `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`,
    ...samples.map(([labels, value]) => `${name}${labels} ${value}\n`)
  ].join("")

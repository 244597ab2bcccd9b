import { assert, it } from "@effect/vitest"
import { clusterSamples } from "../../adapters/cli/clusterSamples.ts"

const status = {
  ...{ leaseMillis: 12_500, mayGrant: true, trouble: undefined, claims: 3, blocks: 2, freeOfBlocks: 60 },
  ...{
    claimsOfAll: 9,
    lagMillis: 0,
    counts: { requests: 10, writes: 4, failures: { Unreachable: 2, Denied: 0, Full: 0, Refused: 1 } }
  }
}

const samples = (more: Partial<Parameters<typeof clusterSamples>[0]> = {}) =>
  clusterSamples({ ...status, ...more })
    .split("\n")
    .filter((line) => !line.startsWith("#"))

it("a member of a cluster is described in Prometheus's units: seconds, 0 or 1, and reads apart from writes", () => {
  assert.deepStrictEqual(samples(), [
    "portmapper_cluster_granting 1",
    "portmapper_cluster_lease_seconds 12.5",
    "portmapper_cluster_claims 3",
    "portmapper_cluster_blocks 2",
    "portmapper_cluster_free_ports 60",
    "portmapper_cluster_hosts_claims 9",
    "portmapper_cluster_watch_lag_seconds 0",
    'portmapper_cluster_etcd_requests_total{kind="write"} 4',
    'portmapper_cluster_etcd_requests_total{kind="read"} 6',
    'portmapper_cluster_etcd_failures_total{reason="unreachable"} 2',
    'portmapper_cluster_etcd_failures_total{reason="denied"} 0',
    'portmapper_cluster_etcd_failures_total{reason="full"} 0',
    'portmapper_cluster_etcd_failures_total{reason="refused"} 1',
    ""
  ])
  assert.deepStrictEqual(samples({ leaseMillis: undefined, mayGrant: false }).slice(0, 2), [
    "portmapper_cluster_granting 0",
    "portmapper_cluster_lease_seconds 0"
  ])
  assert.include(
    clusterSamples(status),
    "# HELP portmapper_cluster_granting Whether this host may give out ports of the cluster\n# TYPE portmapper_cluster_granting gauge\n"
  )
})

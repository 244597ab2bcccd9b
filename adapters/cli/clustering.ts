/** This host's place in a cluster, for `serve`: what is loaded only where `--cluster` is given. */
import { createHmac } from "node:crypto"
import { Context, Effect, Layer } from "effect"
import { Cluster, type ClusterPortsOptions, clusterPorts } from "../../src/cluster/ClusterPorts.ts"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import type { Driver, DriverError } from "../../src/protocol/Driver.ts"
import type { PortRange } from "../../src/protocol/PortRange.ts"
import type { Page } from "../docker/Routes.ts"
import * as EtcdClient from "../etcd/EtcdClient.ts"
import type { ClusterWiring } from "../host/Mapper.ts"
import { readText } from "../node/FileText.ts"
import type { ClusterOptions } from "./clusterFlags.ts"
import { clusterSamples } from "./clusterSamples.ts"
import { clusterTargets } from "./clusterTargets.ts"
import { failed } from "./failure.ts"

export interface Joined {
  readonly wiring: ClusterWiring
  /** What `GET /metrics` says of the cluster; nothing before the mapper was made. */
  readonly samples: Effect.Effect<string>
  readonly pages: { readonly [path: string]: Effect.Effect<Page, DriverError, Driver> }
}

export interface Joining {
  readonly stateDirectory: string
  readonly ephemeral: PortRange | undefined
  readonly ending: ClusterPortsOptions["ending"]
}

/** Loaded only where it is needed, so it is passed around as a value. */
export type JoinCluster = typeof joinCluster

export const joinCluster = (
  options: ClusterOptions,
  { stateDirectory, ephemeral, ending }: Joining
): Joined => {
  let cluster: Cluster["Service"] | undefined
  const { host, address, ttl, absence, scope } = options
  const ports = Layer.unwrap(
    Effect.gen(function* () {
      const range = ephemeral ?? (yield* (yield* HostSockets).ephemeral).range
      return clusterPorts({
        ...{ host, address, ttl, absence, ending, ephemeral: range },
        identity: identityOf(stateDirectory)
      })
    })
  )
  const store = ClusterStore.layer({ name: options.name }).pipe(
    Layer.provide(EtcdClient.layer(options.etcd)),
    Layer.catch((error) => Layer.effectContext(Effect.fail(failed("joining the cluster", error.message))))
  )
  return {
    wiring: {
      scope,
      ports: ports.pipe(
        Layer.provide(store),
        Layer.tap((services) =>
          Effect.sync(() => {
            cluster = Context.get(services, Cluster)
          })
        )
      )
    },
    samples: Effect.suspend(() =>
      cluster === undefined ? Effect.succeed("") : Effect.map(cluster.status, clusterSamples)
    ),
    pages: { "/cluster/targets": clusterTargets }
  }
}

/**
 * Tells machines that call themselves alike from each other, and stays over a reboot. The machine's own id is not for
 * others to read (machine-id(5)); where there is none, a reboot makes another machine of it.
 */
const identityOf = (stateDirectory: string): string => {
  const machine =
    readText("/etc/machine-id")?.trim() || readText("/proc/sys/kernel/random/boot_id")?.trim() || ""
  return createHmac("sha256", machine).update(`portmapper ${stateDirectory}`).digest("hex").slice(0, 32)
}

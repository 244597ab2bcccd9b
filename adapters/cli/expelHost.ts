import { Effect, Layer } from "effect"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import * as EtcdClient from "../etcd/EtcdClient.ts"
import type { Connection } from "./clusterFlags.ts"

/** Returns whether there was such a host. */
export const expelHost = ({ name, etcd }: Connection, host: string) =>
  ClusterStore.use((store) => store.expel(host)).pipe(
    Effect.provide(ClusterStore.layer({ name }).pipe(Layer.provide(EtcdClient.layer(etcd))))
  )

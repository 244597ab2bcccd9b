/** An etcd in memory, whose hosts' connections have no faults until a test sets them. */
import { Context, Effect, Layer } from "effect"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { Etcd } from "../../src/cluster/Etcd.ts"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { EtcdControl } from "../cluster/etcdConformance.ts"

export const memoryEtcd = Layer.mergeAll(
  Layer.effect(
    Etcd,
    Effect.map(MemoryEtcd, (etcd) => etcd.connection("a"))
  ),
  Layer.effect(
    EtcdControl,
    Effect.map(MemoryEtcd, (etcd) => EtcdControl.of({ compact: Effect.sync(etcd.compact) }))
  )
).pipe(Layer.provide(MemoryEtcd.layer))

/** The store of one host, on its own connection to an etcd in memory. */
export const storeFor = (memory: MemoryEtcd["Service"], host: string) =>
  Effect.map(
    Layer.build(
      Layer.fresh(ClusterStore.layer({ name: "default" })).pipe(
        Layer.provide(Layer.succeed(Etcd, memory.connection(host)))
      )
    ),
    (built) => Context.get(built, ClusterStore)
  )

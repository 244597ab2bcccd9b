/** An etcd in memory, whose hosts' connections have no faults until a test sets them. */
import { Effect, Layer } from "effect"
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

import { Effect, Layer } from "effect"
import { Etcd } from "../../src/cluster/Etcd.ts"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { EtcdControl, etcdConformance } from "./etcdConformance.ts"

const control = Effect.map(MemoryEtcd, (etcd) => EtcdControl.of({ compact: Effect.sync(etcd.compact) }))

etcdConformance(
  "the etcd in memory",
  Layer.mergeAll(
    Layer.effect(
      Etcd,
      Effect.map(MemoryEtcd, (etcd) => etcd.connection("a"))
    ),
    Layer.effect(EtcdControl, control)
  ).pipe(Layer.provide(MemoryEtcd.layer))
)

/** A real etcd on loopback as a layer. */
import { Context, Duration, Effect, Layer, Result } from "effect"
import { EtcdClient, type EtcdOptions, parseEndpoints } from "../../adapters/etcd/index.ts"
import type { Session } from "../../src/cluster/ClusterState.ts"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import type { Etcd } from "../../src/cluster/Etcd.ts"
import { EtcdControl } from "../cluster/etcdConformance.ts"
import { startEtcd } from "../lab/Etcd.ts"
import { patienceMillis } from "../lab/patience.ts"

/** On a busy machine an answer may take long. */
export const patience = Duration.millis(patienceMillis)

export const clientOf = (urls: string, options: Partial<EtcdOptions> = {}) =>
  EtcdClient.layer({
    endpoints: Result.getOrThrow(parseEndpoints(urls)),
    timeoutMillis: patienceMillis,
    ...options
  })

/** One member, for all tests of a file. */
export const realEtcd = Layer.unwrap(
  Effect.gen(function* () {
    const { urls, ctl } = yield* startEtcd()
    const control = EtcdControl.of({
      compact: Effect.gen(function* () {
        const status = JSON.parse(yield* ctl("endpoint", "status", "-w", "json"))
        yield* ctl("compact", String(status[0].Status.header.revision))
      }).pipe(Effect.orDie)
    })
    return Layer.merge(clientOf(urls), Layer.succeed(EtcdControl, control))
  })
) satisfies Layer.Layer<Etcd | EtcdControl, unknown>

/** A store of its own, with connections of its own. */
export const storeAt = (urls: string, within = patience) =>
  Effect.map(
    Layer.build(
      Layer.fresh(ClusterStore.layer({ name: "default", patience: within })).pipe(
        Layer.provide(clientOf(urls))
      )
    ),
    (built) => Context.get(built, ClusterStore)
  )

export const openAs = (store: ClusterStore["Service"], host: string) =>
  Effect.map(
    store.open({ host, identity: host, ttl: Duration.seconds(60) }),
    ({ session }): Session => session
  )

import { assert, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { Etcd } from "../../src/cluster/Etcd.ts"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"

const layer = ClusterStore.layer({ name: "default" }).pipe(
  Layer.provideMerge(
    Layer.effect(
      Etcd,
      Effect.map(MemoryEtcd, (etcd) => etcd.connection("a"))
    )
  ),
  Layer.provideMerge(MemoryEtcd.layer)
)

it.effect("keeps a claim and its revision over a clean stop", () =>
  Effect.gen(function* () {
    const store = yield* ClusterStore
    const open = store.open({ host: "a", identity: "1", ttl: Duration.seconds(30) })
    const { session } = yield* open
    const seen = { cell: "125", revision: 0 }
    const claimed = yield* store.claim(session, seen, [{ name: "8080", value: "web" }])
    assert.strictEqual(claimed._tag, "Claimed")
    assert.deepStrictEqual(yield* store.claim(session, seen, [{ name: "8081", value: "web" }]), {
      _tag: "Moved",
      state: claimed.state
    })
    yield* store.leave(session, Duration.minutes(10))
    const again = yield* open
    const [cell] = (yield* store.readAll).cells
    assert.deepStrictEqual(cell?.claims, [
      {
        cell: "125",
        name: "8080",
        host: "a",
        value: "web",
        lease: again.session.lease,
        revision: claimed.state.revision
      }
    ])
  }).pipe(Effect.provide(layer))
)

/** Every drill, and what needs more hosts than there are namespaces. */
import { assert } from "@effect/vitest"
import { Effect, Queue, Stream } from "effect"
import type { ClusterEvent } from "../../src/cluster/ClusterState.ts"
import { liveThroughFaults } from "../cluster/anyFaults.ts"
import * as Drills from "../cluster/drills.ts"
import { openAs, storeAt } from "../etcd/realEtcd.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"

const { runDrills, runInOneLab, ...drills } = Drills

runDrills(Object.values(drills))

liveThroughFaults(1000, 500)

testNeeding("a hundred hosts follow etcd again after it was away", ["etcd", "etcdctl"], () =>
  Effect.gen(function* () {
    const { urls, members } = yield* startEtcd()
    const hosts = yield* Effect.forEach(
      Array.from({ length: 100 }, (_, index) => `host-${index}`),
      (host) =>
        Effect.gen(function* () {
          const store = yield* storeAt(urls)
          const session = yield* openAs(store, host)
          const events = yield* Queue.unbounded<ClusterEvent>()
          yield* Effect.forkScoped(Stream.runForEach(store.watch, (event) => Queue.offer(events, event)))
          yield* firstOf(events, ({ _tag }) => _tag === "Snapshot")
          return { store, session, events }
        }),
      { concurrency: 20 }
    )
    yield* Effect.forEach(members, ({ kill, start }) => Effect.andThen(kill, start()))
    const [first] = hosts
    assert.isDefined(first)
    if (first === undefined) return
    yield* first.store.claim(first.session, { cell: "125", revision: 0 }, [{ name: "8080", value: "" }])
    for (const { events } of hosts) yield* firstOf(events, showsClaim)
    yield* Effect.forEach(hosts, ({ store, session }) => store.renew(session), { concurrency: 20 })
  })
)

const firstOf = (events: Queue.Queue<ClusterEvent>, isMeant: (event: ClusterEvent) => boolean) =>
  Stream.runHead(Stream.filter(Stream.fromQueue(events), isMeant))

/** Also where a connection broke before it showed anything, and all is read once more. */
const showsClaim = (event: ClusterEvent): boolean => {
  if (event._tag === "Interrupted") return false
  return event._tag === "Snapshot"
    ? event.cells.some(({ claims }) => claims.length > 0)
    : event.changes.some((change) => change._tag === "Claimed")
}

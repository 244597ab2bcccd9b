/** The contract of `ClusterStore`; run on the etcd in memory and on a real one. Each test has a cluster of its own. */
import { assert, layer } from "@effect/vitest"
import { Context, Duration, Effect, Layer, Queue, Stream } from "effect"
import { type CellState, type ClusterEvent, HostTaken, type Session } from "../../src/cluster/ClusterState.ts"
import { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { Etcd, LeaseLost } from "../../src/cluster/Etcd.ts"
import { sureMillis } from "../../src/cluster/LeaseSpan.ts"
import { patienceMillis } from "../lab/patience.ts"
import { until } from "../support/until.ts"
import type { EtcdControl } from "./etcdConformance.ts"

type Store = ClusterStore["Service"]

const ttl = Duration.seconds(60)
/** etcd grants none that is shorter. */
const shortTtl = Duration.seconds(2)
const absence = Duration.minutes(10)

let count = 0

const newStore = Effect.suspend(() => {
  const name = `test-${process.pid}-${++count}`
  const made = Layer.fresh(ClusterStore.layer({ name, patience: Duration.millis(patienceMillis) }))
  return Effect.map(Layer.build(made), (built) => ({ name, store: Context.get(built, ClusterStore) }))
})

const openAs = (store: Store, host: string, options: { readonly ttl?: Duration.Duration } = {}) =>
  Effect.map(
    store.open({ host, identity: `machine of ${host}`, address: `${host}.example`, ttl, ...options }),
    ({ session }) => session
  )

const unclaimed = { cell: "125", revision: 0 }

/** Claims what must be free, and returns the cell. */
const claimed = (
  store: Store,
  session: Session,
  seen: Pick<CellState, "cell" | "revision">,
  ...names: ReadonlyArray<string>
) =>
  Effect.map(
    store.claim(
      session,
      seen,
      names.map((name) => ({ name, value: `for ${name}` }))
    ),
    ({ _tag, state }) => {
      assert.strictEqual(_tag, "Claimed")
      return state
    }
  )

const namesOf = ({ claims }: CellState) => claims.map(({ host, name }) => `${name} of ${host}`)

export const clusterStoreConformance = <E>(name: string, etcd: Layer.Layer<Etcd | EtcdControl, E>) =>
  layer(etcd, { excludeTestServices: true, timeout: "60 seconds" })(`a ClusterStore on ${name}`, (it) => {
    const test = (
      title: string,
      run: (store: Store, name: string) => Effect.Effect<void, unknown, Etcd | EtcdControl>
    ) => it.effect(title, () => Effect.flatMap(newStore, ({ store, name }) => run(store, name)))

    test("claims all or none, if the cell is as it was seen", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        const b = yield* openAs(store, "b")
        const first = yield* claimed(store, a, unclaimed, "8080/tcp", "8080/udp")
        const held = { cell: "125", host: "a", lease: a.lease, revision: first.revision }
        assert.deepStrictEqual(first, {
          cell: "125",
          revision: first.revision,
          readAt: first.revision,
          claims: [
            { ...held, name: "8080/tcp", value: "for 8080/tcp" },
            { ...held, name: "8080/udp", value: "for 8080/udp" }
          ]
        })
        assert.deepStrictEqual(yield* store.claim(b, unclaimed, [{ name: "8081/tcp", value: "" }]), {
          _tag: "Moved",
          state: first
        })
        const second = yield* claimed(store, b, first, "8081/tcp")
        assert.deepStrictEqual(namesOf(second), ["8080/tcp of a", "8080/udp of a", "8081/tcp of b"])
        const taken = [
          { name: "8082/tcp", value: "" },
          { name: "8080/tcp", value: "" }
        ]
        assert.deepStrictEqual(yield* store.claim(b, second, taken), { _tag: "Moved", state: second })
        assert.deepStrictEqual(yield* store.readCell("125"), second)
      }))

    test("does not take a cell for another that begins alike", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        yield* claimed(store, a, { cell: "1250", revision: 0 }, "80000")
        assert.deepStrictEqual((yield* claimed(store, a, unclaimed, "8000")).claims.length, 1)
      }))

    test("refuses more claims than a transaction takes, and none", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        const many = Array.from({ length: 127 }, (_, index) => ({ name: `${index}`, value: "" }))
        for (const claims of [many, []]) {
          const error = yield* Effect.flip(store.claim(a, unclaimed, claims))
          assert.strictEqual(error.message, `etcd: 1 to 126 claims are made at once, not ${claims.length}`)
        }
        assert.strictEqual((yield* store.claim(a, unclaimed, many.slice(1)))._tag, "Claimed")
      }))

    test("gives back the claim of that revision alone", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        const first = yield* claimed(store, a, unclaimed, "1", "2")
        yield* store.release(first.claims.slice(0, 1))
        const second = yield* claimed(store, a, first, "1")
        yield* store.release(first.claims)
        assert.deepStrictEqual(namesOf(yield* store.readCell("125")), ["1 of a"])
        yield* store.release(second.claims)
        const last = yield* store.readCell("125")
        assert.deepStrictEqual([last.claims, last.revision], [[], second.revision])
      }))

    test("changes the value of a claim, and nothing else of it", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        const { claims, revision } = yield* claimed(store, a, unclaimed, "1")
        const [claim] = claims
        assert.isDefined(claim)
        if (claim === undefined) return
        assert.isTrue(yield* store.update(a, claim, "container web"))
        const cell = yield* store.readCell("125")
        assert.deepStrictEqual(
          [cell.revision, cell.claims],
          [revision, [{ ...claim, value: "container web" }]]
        )
        yield* store.release(claims)
        assert.isFalse(yield* store.update(a, claim, "nobody"))
        assert.deepStrictEqual((yield* store.readCell("125")).claims, [])
      }))

    test("gives a host's place to the same machine again, and to no other", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        const cell = yield* claimed(store, a, unclaimed, "1")
        const error = yield* Effect.flip(store.open({ host: "a", identity: "another", ttl }))
        assert.deepStrictEqual(error, new HostTaken({ host: "a", address: "a.example" }))
        assert.deepStrictEqual(yield* openAs(store, "a"), a)
        const other = yield* openAs(store, "a", { ttl: Duration.seconds(90) })
        assert.notStrictEqual(other.lease, a.lease)
        assert.deepStrictEqual(yield* Effect.flip(store.renew(a)), new LeaseLost({ lease: a.lease }))
        assert.deepStrictEqual(
          (yield* store.readCell("125")).claims,
          cell.claims.map((claim) => ({ ...claim, lease: other.lease }))
        )
      }))

    test("keeps all claims of a host that left, and their revisions, until it is back", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        let seen = yield* claimed(store, a, unclaimed, "1")
        for (const first of [100, 200, 300])
          seen = yield* claimed(
            store,
            a,
            seen,
            ...Array.from({ length: 50 }, (_, index) => String(first + index))
          )
        yield* store.leave(a, absence)
        const lost = new LeaseLost({ lease: a.lease })
        assert.deepStrictEqual(yield* Effect.flip(store.renew(a)), lost)
        assert.deepStrictEqual(yield* Effect.flip(store.claim(a, seen, [{ name: "2", value: "" }])), lost)
        assert.deepStrictEqual(yield* Effect.flip(store.leave(a, absence)), lost)
        const away = yield* store.readAll
        assert.deepStrictEqual(
          away.hosts.map(({ revision, ...host }) => host),
          [{ host: "a", address: "a.example", isAbsent: true }]
        )
        const [kept] = away.cells
        const lease = kept?.claims[0]?.lease
        assert.notStrictEqual(lease, a.lease)
        assert.deepStrictEqual(
          kept?.claims,
          seen.claims.map((claim) => ({ ...claim, lease: lease ?? "" }))
        )
        const again = yield* openAs(store, "a")
        const back = yield* store.readAll
        assert.deepStrictEqual(
          back.cells.flatMap(({ claims }) => claims),
          seen.claims.map((claim) => ({ ...claim, lease: again.lease }))
        )
        assert.isFalse(back.hosts[0]?.isAbsent)
      }))

    test("loses a host that does not renew, with all its claims", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a", { ttl: shortTtl })
        const b = yield* openAs(store, "b")
        const seen = yield* claimed(store, a, unclaimed, "1")
        assert.isAtMost(yield* sureMillis(yield* store.renew(a)), 1800)
        yield* until(store.readCell("125"), ({ claims }) => claims.length === 0)
        const lost = new LeaseLost({ lease: a.lease })
        assert.deepStrictEqual(yield* Effect.flip(store.renew(a)), lost)
        assert.deepStrictEqual(yield* Effect.flip(store.claim(a, seen, [{ name: "2", value: "" }])), lost)
        assert.deepStrictEqual(namesOf(yield* claimed(store, b, seen, "1")), ["1 of b"])
        assert.deepStrictEqual(
          (yield* store.readAll).hosts.map(({ host }) => host),
          ["b"]
        )
        assert.notStrictEqual((yield* openAs(store, "a")).lease, a.lease)
      }))

    test("renews no lease that the host's key is not on", (store, name) =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const a = yield* openAs(store, "a")
        yield* store.renew(a)
        const key = `/portmapper/${name}/hosts/a/`
        yield* etcd.transact({ compare: [], success: [{ _tag: "Delete", key }] })
        assert.deepStrictEqual(yield* Effect.flip(store.renew(a)), new LeaseLost({ lease: a.lease }))
      }))

    test("expels a host, whoever it is", (store) =>
      Effect.gen(function* () {
        const a = yield* openAs(store, "a")
        yield* claimed(store, a, unclaimed, "1")
        yield* store.leave(a, absence)
        assert.isTrue(yield* store.expel("a"))
        const { hosts, cells } = yield* store.readAll
        assert.deepStrictEqual([hosts, cells.flatMap(({ claims }) => claims)], [[], []])
        assert.isFalse(yield* store.expel("a"))
        assert.isFalse(yield* store.expel("never there"))
      }))

    test("shows all there is, and then each change", (store) =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const a = yield* openAs(store, "a")
        const first = yield* claimed(store, a, unclaimed, "1")
        const events = yield* Queue.unbounded<ClusterEvent>()
        yield* Effect.forkScoped(Stream.runForEach(store.watch, (event) => Queue.offer(events, event)))
        const snapshot = yield* store.readAll
        assert.deepStrictEqual(yield* Queue.take(events), snapshot)
        assert.deepStrictEqual(snapshot.cells, [{ ...first, readAt: snapshot.revision }])
        /** The changes of the next revision that has some. */
        const changes = Effect.gen(function* () {
          while (true) {
            const event = yield* Queue.take(events)
            if (event._tag === "Changed" && event.changes.length > 0) return event
          }
        })
        const second = yield* claimed(store, a, first, "2")
        const { revision } = second
        assert.deepStrictEqual(yield* changes, {
          _tag: "Changed",
          revision,
          changes: [
            { _tag: "CellMoved", cell: "125", revision },
            ...second.claims.slice(1).map((claim) => ({ _tag: "Claimed", claim, revision }) as const)
          ]
        })
        yield* store.release(first.claims)
        assert.deepStrictEqual((yield* changes).changes, [
          { _tag: "Released", claim: { cell: "125", name: "1" }, revision: revision + 1 }
        ])
        yield* etcd.revoke(a.lease)
        const left = yield* changes
        assert.deepStrictEqual(left.changes.map(({ _tag }) => _tag).sort(), ["HostLeft", "Released"])
        assert.strictEqual(left.revision, revision + 2)
      }).pipe(Effect.scoped))
  })

/** The contract of every `Etcd`; run against the one in memory and a real one. Each test has a prefix of its own. */
import { assert, layer } from "@effect/vitest"
import { Context, Duration, Effect, type Layer, Queue, Stream } from "effect"
import { Etcd, LeaseLost, type Operation, type WatchBatch } from "../../src/cluster/Etcd.ts"
import { until } from "../support/until.ts"

/** What a test does to etcd that no client of ours does. */
export class EtcdControl extends Context.Service<
  EtcdControl,
  {
    /** Forgets the versions before the present one. */
    readonly compact: Effect.Effect<void>
  }
>()("portmapper/test/EtcdControl") {}

const ttl = Duration.seconds(60)
/** etcd grants none that is shorter. */
const shortTtl = Duration.seconds(2)

let count = 0
const fresh = () => `/portmapper-test-${process.pid}/${++count}/`

const put = (key: string, value: string, lease?: string): Operation => ({ _tag: "Put", key, value, lease })

const write = (etcd: Etcd["Service"], ...success: ReadonlyArray<Operation>) =>
  etcd.transact({ compare: [], success })

const read = (etcd: Etcd["Service"], prefix: string) =>
  Effect.map(write(etcd, { _tag: "Read", prefix }), ({ reads }) => reads[0] ?? [])

const texts = ({ changes }: WatchBatch, prefix: string) =>
  changes.map((change) =>
    change._tag === "Put"
      ? `${change.entry.key.slice(prefix.length)}=${change.entry.value}`
      : `${change.key.slice(prefix.length)} gone`
  )

export const etcdConformance = <E>(name: string, implementation: Layer.Layer<Etcd | EtcdControl, E>) =>
  layer(implementation, { excludeTestServices: true, timeout: "60 seconds" })(`${name} as an Etcd`, (it) => {
    it.effect("runs one branch of a transaction, at one revision, and reads what it has written", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const prefix = fresh()
        const [a, b] = [`${prefix}a`, `${prefix}b`]
        const readAll: Operation = { _tag: "Read", prefix }
        const create = {
          compare: [{ _tag: "Revision", key: a, is: 0 }],
          success: [put(a, "é 1"), put(b, ""), readAll],
          failure: [readAll]
        } as const
        const made = yield* etcd.transact(create)
        const entries = [
          { key: a, value: "é 1", createRevision: made.revision, revision: made.revision, lease: undefined },
          { key: b, value: "", createRevision: made.revision, revision: made.revision, lease: undefined }
        ]
        assert.deepStrictEqual(made, { succeeded: true, revision: made.revision, reads: [entries] })
        assert.deepStrictEqual(yield* etcd.transact(create), { ...made, succeeded: false })
        const nested = yield* write(
          etcd,
          ...[made.revision, 1].map(
            (is, index): Operation => ({
              _tag: "Transaction",
              transaction: {
                compare: [{ _tag: "CreateRevision", key: [a, b][index] ?? "", is }],
                success: [{ _tag: "Delete", key: [a, b][index] ?? "" }]
              }
            })
          ),
          readAll
        )
        assert.deepStrictEqual(nested, {
          succeeded: true,
          revision: made.revision + 1,
          reads: [entries.slice(1)]
        })
      })
    )

    it.effect("compares the creation of a key and its lease, which its later writes keep or change", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const key = `${fresh()}key`
        const lease = yield* etcd.grant(ttl)
        const { revision } = yield* write(etcd, put(key, "first", lease))
        const isSo = (...compare: Parameters<typeof etcd.transact>[0]["compare"]) =>
          Effect.map(etcd.transact({ compare, success: [] }), ({ succeeded }) => succeeded)
        assert.isTrue(yield* isSo({ _tag: "Lease", key, is: lease }))
        assert.isFalse(yield* isSo({ _tag: "Lease", key: `${key}2`, is: lease }))
        assert.isTrue(yield* isSo({ _tag: "CreatedAfter", key, revision: revision - 1 }))
        assert.isFalse(yield* isSo({ _tag: "CreatedAfter", key, revision }))
        assert.isFalse(yield* isSo({ _tag: "CreatedAfter", key: `${key}2`, revision: 0 }))
        const other = yield* etcd.grant(ttl)
        const moved = yield* write(etcd, { _tag: "Put", key, lease: other })
        assert.deepStrictEqual(yield* read(etcd, key), [
          { key, value: "first", createRevision: revision, revision: moved.revision, lease: other }
        ])
      })
    )

    it.effect("puts nothing on a lease that is not there", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const prefix = fresh()
        const lease = yield* etcd.grant(ttl)
        yield* etcd.revoke(lease)
        const error = yield* Effect.flip(write(etcd, put(`${prefix}a`, ""), put(`${prefix}b`, "", lease)))
        assert.deepStrictEqual(error, new LeaseLost({ lease }))
        assert.deepStrictEqual(yield* read(etcd, prefix), [])
      })
    )

    it.effect("takes the most operations that one request may have", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const prefix = fresh()
        const keys = Array.from({ length: 128 }, (_, index) => `${prefix}${1000 + index}`)
        yield* write(etcd, ...keys.map((key) => put(key, "x")))
        const release = (key: string): Operation => ({
          _tag: "Transaction",
          transaction: {
            compare: [{ _tag: "CreatedAfter", key, revision: 0 }],
            success: [{ _tag: "Delete", key }]
          }
        })
        yield* write(etcd, ...keys.slice(0, 64).map(release))
        assert.strictEqual((yield* read(etcd, prefix)).length, 64)
        for (const operations of [
          [...keys, prefix].map((key) => put(key, "x")),
          Array.from({ length: 128 }, () => release(`${prefix}1100`))
        ]) {
          const error = yield* Effect.flip(write(etcd, ...operations))
          assert.strictEqual("detail" in error ? error.detail : "", "too many operations in txn request")
        }
      })
    )

    it.effect("reads in pages at one revision, whatever is written meanwhile", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const prefix = fresh()
        const keys = ["a", "b", "c"].map((key) => prefix + key)
        yield* write(etcd, ...keys.map((key) => put(key, "then")))
        const first = yield* etcd.page(prefix, { limit: 2 })
        yield* write(etcd, put(`${prefix}c`, "now"), put(`${prefix}d`, "now"))
        const { revision } = first
        const second = yield* etcd.page(prefix, { limit: 2, after: `${prefix}b`, revision })
        assert.deepStrictEqual(
          [first, second].map((page) => [page.revision, page.more, page.entries.map(({ key }) => key)]),
          [
            [revision, true, keys.slice(0, 2)],
            [revision, false, keys.slice(2)]
          ]
        )
        assert.strictEqual(second.entries[0]?.value, "then")
        const future = yield* Effect.flip(etcd.page(prefix, { limit: 1, revision: revision + 1_000_000 }))
        assert.strictEqual(future._tag, "HistoryLost")
      })
    )

    it.effect("watches from a revision: each change once, in order, each revision whole", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const prefix = fresh()
        const lease = yield* etcd.grant(ttl)
        const { revision } = yield* write(etcd, put(`${prefix}0`, "before"))
        yield* write(etcd, put(`${prefix}a`, "1", lease), put(`${prefix}b`, "2", lease))
        const queue = yield* Queue.unbounded<WatchBatch>()
        yield* Effect.forkScoped(
          Stream.runForEach(etcd.watch(prefix, revision), (batch) => Queue.offer(queue, batch))
        )
        const next = Effect.map(Queue.take(queue), (batch) => texts(batch, prefix))
        assert.deepStrictEqual(yield* Queue.take(queue), { revision, changes: [] })
        assert.deepStrictEqual(yield* next, ["a=1", "b=2"])
        yield* write(etcd, put(`${prefix.slice(0, -1)}0`, "beside the prefix"))
        yield* write(etcd, put(`${prefix}0`, "after"))
        assert.deepStrictEqual(yield* next, ["0=after"])
        yield* etcd.revoke(lease)
        const gone = yield* Queue.take(queue)
        assert.deepStrictEqual(texts(gone, prefix).sort(), ["a gone", "b gone"])
        const { revision: last } = yield* write(etcd, { _tag: "Delete", key: `${prefix}0` })
        assert.deepStrictEqual(yield* Queue.take(queue), {
          revision: last,
          changes: [{ _tag: "Delete", key: `${prefix}0`, revision: last }]
        })
        assert.strictEqual(gone.revision, last - 1)
      })
    )

    it.effect("has no changes from before a compaction", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const prefix = fresh()
        const { revision } = yield* write(etcd, put(`${prefix}a`, "1"))
        yield* write(etcd, put(`${prefix}a`, "2"))
        yield* write(etcd, put(`${prefix}a`, "3"))
        yield* (yield* EtcdControl).compact
        const watched = yield* Effect.flip(Stream.runDrain(etcd.watch(prefix, revision)))
        assert.strictEqual(watched._tag, "HistoryLost")
        const paged = yield* Effect.flip(etcd.page(prefix, { limit: 1, revision }))
        assert.strictEqual(paged._tag, "HistoryLost")
      })
    )

    it.effect("ends a lease that is not kept alive, with its keys, and no other", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const prefix = fresh()
        const kept = yield* etcd.grant(ttl)
        const lost = yield* etcd.grant(shortTtl)
        yield* write(etcd, put(`${prefix}kept`, "", kept), put(`${prefix}lost`, "", lost))
        assert.deepStrictEqual(yield* etcd.leaseState(lost), {
          granted: shortTtl,
          keys: [`${prefix}lost`]
        })
        yield* etcd.keepAlive(lost)
        yield* until(etcd.leaseState(lost), (state) => state === undefined)
        assert.deepStrictEqual(
          (yield* until(read(etcd, prefix), ({ length }) => length === 1)).map(({ key }) => key),
          [`${prefix}kept`]
        )
        assert.deepStrictEqual(yield* Effect.flip(etcd.keepAlive(lost)), new LeaseLost({ lease: lost }))
        yield* etcd.revoke(lost)
        yield* etcd.keepAlive(kept)
      })
    )

    it.effect("counts requests, and those that may write", () =>
      Effect.gen(function* () {
        const etcd = yield* Etcd
        const before = yield* etcd.counts
        yield* read(etcd, fresh())
        yield* write(etcd, put(fresh(), ""))
        yield* etcd.transact({ compare: [], success: [], failure: [put(fresh(), "")] })
        const after = yield* etcd.counts
        assert.deepStrictEqual(
          { requests: after.requests - before.requests, writes: after.writes - before.writes },
          { requests: 3, writes: 2 }
        )
      })
    )
  })

/** Reads everything at one revision, and follows what changes. */
import { Effect, Queue, Random, Stream } from "effect"
import { type ClusterKeys, clusterChange, clusterState } from "./ClusterKeys.ts"
import type { ClusterChange, ClusterEvent, Snapshot } from "./ClusterState.ts"
import { type ClusterError, type Entry, type Etcd, HistoryLost, type WatchBatch } from "./Etcd.ts"

/** Of about 300 bytes each: one answer stays far below what an endpoint may send at once. */
const pageSize = 1000

/** The pauses between attempts grow to the longest, and differ between hosts that lost etcd at the same time. */
const pauseMillis = { first: 100, longest: 5000 }

/** What a caller of `watch` has not taken yet; more waits at etcd. */
const bufferSize = 16

export const readAll = (etcd: Etcd["Service"], keys: ClusterKeys): Effect.Effect<Snapshot, ClusterError> =>
  Effect.map(readEntries(etcd, keys), (all) => snapshotOf(keys, all))

export const watch = (etcd: Etcd["Service"], keys: ClusterKeys): Stream.Stream<ClusterEvent> =>
  Stream.callback<ClusterEvent>(
    Effect.fnUntraced(function* (queue) {
      let followed: Followed | undefined
      let pause = pauseMillis.first
      const follow = Effect.gen(function* () {
        if (followed === undefined) {
          const all = yield* readEntries(etcd, keys)
          followed = { revision: all.revision, anchor: latest(all.entries) }
          yield* Queue.offer(queue, snapshotOf(keys, all))
        } else yield* sameHistory(etcd, followed)
        let last = followed
        yield* Stream.runForEach(etcd.watch(keys.all, last.revision), (batch) => {
          last = afterBatch(last, batch)
          followed = last
          pause = pauseMillis.first
          return Queue.offer(queue, changedOf(keys, batch))
        })
      })
      while (true) {
        const ended = yield* Effect.flip(Effect.andThen(follow, Effect.never))
        if (ended._tag === "HistoryLost") followed = undefined
        else yield* Queue.offer(queue, { _tag: "Interrupted", error: ended })
        yield* Effect.sleep(yield* Random.nextBetween(pause / 2, pause))
        pause = Math.min(2 * pause, pauseMillis.longest)
      }
    }),
    { bufferSize }
  )

interface All {
  readonly revision: number
  readonly entries: ReadonlyArray<Entry>
}

/** `anchor`: an entry as it was at that revision, so that another history shows; none after its key was deleted. */
interface Followed {
  readonly revision: number
  readonly anchor: Entry | undefined
}

const readEntries = (etcd: Etcd["Service"], keys: ClusterKeys): Effect.Effect<All, ClusterError> => {
  const atOneRevision = Effect.gen(function* () {
    let page = yield* etcd.page(keys.all, { limit: pageSize })
    const { revision } = page
    const entries = [...page.entries]
    while (page.more) {
      page = yield* etcd.page(keys.all, { limit: pageSize, after: entries.at(-1)?.key, revision })
      entries.push(...page.entries)
    }
    return { revision, entries }
  })
  // It was compacted on the way.
  return Effect.catchTag(atOneRevision, "HistoryLost", () => Effect.suspend(() => readEntries(etcd, keys)))
}

/** Fails where etcd was restored from a backup that does not have the revision, or has reached it by other writes. */
const sameHistory = Effect.fnUntraced(function* (etcd: Etcd["Service"], { revision, anchor }: Followed) {
  if (anchor === undefined) return yield* new HistoryLost({ revision })
  const [found] = (yield* etcd.page(anchor.key, { limit: 1, revision })).entries
  const isSame =
    found?.key === anchor.key &&
    found.revision === anchor.revision &&
    found.value === anchor.value &&
    found.lease === anchor.lease
  if (!isSame) return yield* new HistoryLost({ revision })
})

const latest = (entries: ReadonlyArray<Entry>): Entry | undefined =>
  entries.reduce<Entry | undefined>(
    (last, entry) => (last === undefined || entry.revision > last.revision ? entry : last),
    undefined
  )

const afterBatch = ({ anchor }: Followed, { revision, changes }: WatchBatch): Followed => {
  let last = anchor
  for (const change of changes) {
    if (change._tag === "Put") last = change.entry
    else if (change.key === last?.key) last = undefined
  }
  return { revision, anchor: last }
}

const snapshotOf = (keys: ClusterKeys, { revision, entries }: All): Snapshot => ({
  _tag: "Snapshot",
  revision,
  ...clusterState(keys, revision, entries)
})

const changedOf = (keys: ClusterKeys, { revision, changes }: WatchBatch): ClusterEvent => ({
  _tag: "Changed",
  revision,
  changes: changes.flatMap((change): ReadonlyArray<ClusterChange> => {
    const ours = clusterChange(keys, change)
    return ours === undefined ? [] : [ours]
  })
})

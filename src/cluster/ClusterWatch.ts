/** Reads everything at one revision, and follows what changes. */
import { Effect, Queue, Random, Stream } from "effect"
import { type ClusterKeys, clusterChange, clusterState } from "./ClusterKeys.ts"
import type { ClusterChange, ClusterEvent, Snapshot } from "./ClusterState.ts"
import type { ClusterError, Entry, Etcd } from "./Etcd.ts"

/** Of about 300 bytes each: one answer stays far below what an endpoint may send at once. */
const pageSize = 1000

/** The pauses between attempts grow to the longest, and differ between hosts that lost etcd at the same time. */
const firstPauseMillis = 100
const longestPauseMillis = 5000

export const readAll = (etcd: Etcd["Service"], keys: ClusterKeys): Effect.Effect<Snapshot, ClusterError> => {
  const read = Effect.fnUntraced(function* () {
    const entries: Array<Entry> = []
    let page = yield* etcd.page(keys.all, { limit: pageSize })
    const { revision } = page
    entries.push(...page.entries)
    while (page.more) {
      page = yield* etcd.page(keys.all, { limit: pageSize, after: entries.at(-1)?.key, revision })
      entries.push(...page.entries)
    }
    return { _tag: "Snapshot", revision, ...clusterState(keys, revision, entries) } as const
  })
  const whole: Effect.Effect<Snapshot, ClusterError> = Effect.catchTag(read(), "HistoryLost", () =>
    Effect.suspend(() => whole)
  )
  return whole
}

export const watch = (etcd: Etcd["Service"], keys: ClusterKeys): Stream.Stream<ClusterEvent> =>
  Stream.callback<ClusterEvent>(
    Effect.fnUntraced(function* (queue) {
      let revision: number | undefined
      let pause = firstPauseMillis
      const follow = Effect.gen(function* () {
        if (revision === undefined) {
          const snapshot = yield* readAll(etcd, keys)
          revision = snapshot.revision
          yield* Queue.offer(queue, snapshot)
        }
        yield* Stream.runForEach(etcd.watch(keys.all, revision), (batch) => {
          revision = batch.revision
          pause = firstPauseMillis
          const changes = batch.changes.flatMap((change): ReadonlyArray<ClusterChange> => {
            const ours = clusterChange(keys, change)
            return ours === undefined ? [] : [ours]
          })
          return Queue.offer(queue, { _tag: "Changed", revision: batch.revision, changes })
        })
      })
      while (true) {
        const ended = yield* Effect.flip(Effect.andThen(follow, Effect.never))
        if (ended._tag === "HistoryLost") {
          revision = undefined
          continue
        }
        yield* Queue.offer(queue, { _tag: "Interrupted", error: ended })
        yield* Effect.sleep(yield* Random.nextBetween(pause / 2, pause))
        pause = Math.min(2 * pause, longestPauseMillis)
      }
    }),
    // What a caller has not taken yet waits at etcd, not here.
    { bufferSize: 16 }
  )

/** A watch over the JSON gateway: one answer that does not end, a message in each line. */
import { Effect, Stream } from "effect"
import { ClusterError, HistoryLost, type WatchBatch, type WatchChange } from "../../src/cluster/Etcd.ts"
import { jsonOf } from "../node/jsonOf.ts"
import { linesOf } from "../node/linesOf.ts"
import { type Asked, errorAt, failure, refused } from "./EtcdFailures.ts"
import type { EtcdGateway, Peer } from "./EtcdGateway.ts"
import { decodeFailure, decodeWatch, watchBody } from "./EtcdMessages.ts"

/** etcd splits what is longer than a request may be; base64 and the rest of JSON make it up to twice as long. */
const longestLine = 16 * 1024 * 1024

/** A connection over which nothing comes is tried after this long. */
const keepAliveMillis = 5_000

export const watch = (
  gateway: EtcdGateway,
  prefix: string,
  after: number
): Stream.Stream<WatchBatch, ClusterError | HistoryLost> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const { response, peer } = yield* Effect.catchTag(
        gateway.open("/v3/watch", watchBody(prefix, after)),
        "EtcdAnswer",
        (answer) => Effect.fail(refused(answer))
      )
      response.socket.setKeepAlive(true, keepAliveMillis)
      // A member that hangs, or is cut off from the others, leaves the connection as it is.
      const onLost = (error: ClusterError) => void response.destroy(error)
      yield* Effect.acquireRelease(
        Effect.sync(() => peer.onLost.add(onLost)),
        () => Effect.sync(() => peer.onLost.delete(onLost))
      )
      const read = reader(peer, after)
      const lines = Stream.fromAsyncIterable(linesOf(response, longestLine), (error) => broken(peer, error))
      const batches = Stream.flatMap(Stream.mapEffect(lines, read), Stream.fromIterable)
      return Stream.concat(batches, Stream.fail(broken(peer, undefined))).pipe(
        Stream.catchTag("ClusterError", (error) => Stream.fromEffect(gateway.fail(peer, error)))
      )
    })
  )

const askedOf = (peer: Peer): Asked => ({ endpoint: peer.endpoint, writes: false })

const broken = (peer: Peer, error: unknown): ClusterError =>
  error instanceof ClusterError ? error : errorAt(askedOf(peer), "Unreachable", "the watch ended")

/** Makes batches of lines: one that etcd has split is put together, since a revision may be in two of its pieces. */
const reader = (peer: Peer, after: number) => {
  let pieces: ReadonlyArray<WatchChange> = []
  return Effect.fnUntraced(function* (
    line: string
  ): Effect.fn.Return<ReadonlyArray<WatchBatch>, ClusterError | HistoryLost> {
    const value = jsonOf(line)
    const failed = decodeFailure(value)
    if (failed !== undefined) return yield* inStream(peer, failed.code, failed.message)
    const message = yield* Effect.mapError(Effect.fromResult(decodeWatch(value)), (why) =>
      errorAt(askedOf(peer), "Refused", `a message that is none of etcd v3's: ${why}`)
    )
    switch (message._tag) {
      case "Begun":
        return [{ revision: after, changes: [] }]
      case "Progress":
        return [{ revision: message.revision, changes: [] }]
      case "Cancelled":
        return yield* message.compacted ? new HistoryLost({ revision: after }) : cancelled(peer, message.why)
      case "Changes": {
        pieces = [...pieces, ...message.changes]
        if (!message.isWhole) return []
        const changes = pieces
        pieces = []
        return [{ revision: lastOf(changes), changes }]
      }
    }
  })
}

/** Not the header's: etcd sends what a watch has missed in several answers, each with its present revision. */
const lastOf = (changes: ReadonlyArray<WatchChange>): number => {
  const last = changes.at(-1)
  if (last === undefined) return 0
  return last._tag === "Put" ? last.entry.revision : last.revision
}

const inStream = (peer: Peer, code: number, message: string): ClusterError => {
  const error = failure(askedOf(peer), code, message)
  return error._tag === "ClusterError" ? error : errorAt(askedOf(peer), "Unreachable", error.message)
}

const cancelled = (peer: Peer, why: string): ClusterError =>
  errorAt(askedOf(peer), /permission denied|PermissionDenied/.test(why) ? "Denied" : "Unreachable", why)

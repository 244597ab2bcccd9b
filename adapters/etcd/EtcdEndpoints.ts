/** What each endpoint says of itself, for `doctor`. */
import { Clock, Effect, type Result } from "effect"
import type { ClusterError } from "../../src/cluster/Etcd.ts"
import type { TlsFileError } from "../node/HttpClient.ts"
import { monotonicMillis } from "../node/monotonicMillis.ts"
import { refused, withoutAnswer } from "./EtcdFailures.ts"
import { connectPeers, decoded, type Peer } from "./EtcdGateway.ts"
import { decodeStatus } from "./EtcdMessages.ts"
import type { EtcdOptions } from "./EtcdOptions.ts"

export interface EndpointStatus {
  readonly endpoint: string
  readonly version: string
  readonly hasLeader: boolean
  /** The size of its database. */
  readonly bytes: number
  /** How long the answer took. */
  readonly millis: number
  /** How far its clock is ahead of ours, give or take half a second; `undefined` where it does not say. */
  readonly skewMillis: number | undefined
}

/** Asks every endpoint at once, in their order; needs no rights. */
export const checkEndpoints = (
  options: EtcdOptions
): Effect.Effect<ReadonlyArray<Result.Result<EndpointStatus, ClusterError>>, TlsFileError> =>
  Effect.scoped(
    Effect.flatMap(connectPeers(options), (peers) =>
      Effect.forEach(peers, (peer) => Effect.result(statusOf(peer)), { concurrency: "unbounded" })
    )
  )

const statusOf = Effect.fnUntraced(function* ({ endpoint, http }: Peer) {
  const asked = { endpoint, writes: false }
  const before = yield* monotonicMillis
  const answer = yield* http
    .ask({ method: "POST", path: "/v3/maintenance/status", body: "{}" })
    .pipe(Effect.mapError((error) => withoutAnswer(asked, error)))
  const millis = (yield* monotonicMillis) - before
  const status = yield* Effect.mapError(Effect.fromResult(decoded(asked, answer, decodeStatus)), (failure) =>
    failure._tag === "ClusterError" ? failure : refused(failure)
  )
  const theirs = Date.parse(answer.headers.date ?? "")
  const ours = (yield* Clock.currentTimeMillis) - millis / 2
  // It comes in whole seconds, rounded down.
  const skewMillis = Number.isNaN(theirs) ? undefined : theirs + 500 - ours
  return { endpoint, ...status, millis, skewMillis } satisfies EndpointStatus
})

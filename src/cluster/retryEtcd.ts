/** Asks again where no endpoint answered. Every request may be carried out twice: its comparisons see the first time. */
import { Duration, Effect, Random, Schedule } from "effect"
import { ClusterError, type Etcd } from "./Etcd.ts"

/** Between two attempts: long enough for another endpoint's turn, short against an election. */
const pauseMillis = { least: 20, most: 100 }

/** Each request but the watch ends within `patience`, and an error says so of the last attempt; `mayBeDone` of any. */
export const retryEtcd = (etcd: Etcd["Service"], patience: Duration.Duration): Etcd["Service"] => {
  const again = <A, E>(attempt: Effect.Effect<A, E | ClusterError>): Effect.Effect<A, E | ClusterError> =>
    Effect.suspend(() => {
      let last: ClusterError | undefined
      let mayBeDone = false
      return attempt.pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (!(error instanceof ClusterError)) return
            last = error
            mayBeDone ||= error.mayBeDone
          })
        ),
        // Time is over while it is on its way.
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            mayBeDone = true
          })
        ),
        Effect.retry({ while: isUnreachable, schedule: pauses }),
        Effect.timeoutOrElse({
          duration: patience,
          orElse: () => Effect.fail(last ?? noAnswer(patience))
        }),
        Effect.mapError((error) =>
          error instanceof ClusterError && mayBeDone ? new ClusterError({ ...error, mayBeDone }) : error
        )
      )
    })
  return {
    transact: (transaction) => again(etcd.transact(transaction)),
    page: (prefix, options) => again(etcd.page(prefix, options)),
    watch: etcd.watch,
    grant: (ttl) => again(etcd.grant(ttl)),
    keepAlive: (lease) => again(etcd.keepAlive(lease)),
    revoke: (lease) => again(etcd.revoke(lease)),
    leaseState: (lease) => again(etcd.leaseState(lease)),
    counts: etcd.counts
  }
}

const isUnreachable = (error: unknown): boolean =>
  error instanceof ClusterError && error.reason === "Unreachable"

const pauses = Schedule.addDelay(Schedule.forever, () =>
  Effect.map(Random.nextBetween(pauseMillis.least, pauseMillis.most), Duration.millis)
)

export const noAnswer = (patience: Duration.Duration) =>
  new ClusterError({
    reason: "Unreachable",
    endpoint: undefined,
    detail: `no answer within ${Duration.toSeconds(patience)} s`,
    mayBeDone: true
  })

/**
 * An etcd in memory: revisions, leases by the `Clock`, compaction, backups. Each host of a test has a connection of its own,
 * with its own faults. It keeps etcd's rules, so that what runs on it runs on etcd: `test/cluster` runs one suite on both.
 */
import { Context, Deferred, Duration, Effect, Layer, type Scope, Stream } from "effect"
import { stepped } from "../memory/Steps.ts"
import {
  ClusterError,
  type ClusterErrorReason,
  type Etcd,
  mayWrite,
  mostOperations,
  type Transaction
} from "./Etcd.ts"
import { type Backup, MemoryWorld } from "./MemoryWorld.ts"

/** What happens to one request. Nothing, where all are left out. */
export interface Fault {
  /** `request`: it never arrives. `reply`: it is carried out, and its caller gets no answer. */
  readonly lose?: "request" | "reply" | undefined
  /** It arrives so much later, even if its caller has given up. */
  readonly requestDelay?: Duration.Duration | undefined
  readonly replyDelay?: Duration.Duration | undefined
}

/** How long a connection waits for an answer. */
const memoryTimeout = Duration.seconds(1)

export class MemoryEtcd extends Context.Service<
  MemoryEtcd,
  {
    /** The connection of a host. Its name tells requests apart. */
    readonly connection: (host: string) => Etcd["Service"]
    /** Asked for each request, in order; `operation` is the method's name. */
    readonly setFaults: (faults: (host: string, operation: string) => Fault | undefined) => void
    /** Nothing passes between the host and etcd until it is mended; its watches notice. */
    readonly cut: (host: string) => void
    readonly mend: (host: string) => void
    /** Forgets the changes up to now. */
    readonly compact: () => void
    readonly backup: () => Backup
    /** Goes back to it, with the revision that it had; each of its leases lives for a whole TTL. Watches end. */
    readonly restore: (backup: Backup) => Effect.Effect<void>
    /** Every key with its value, sorted; without those of no value. */
    readonly entries: () => ReadonlyArray<readonly [key: string, value: string]>
  }
>()("portmapper/cluster/MemoryEtcd") {
  static readonly layer: Layer.Layer<MemoryEtcd> = Layer.effect(
    MemoryEtcd,
    Effect.suspend(() => make())
  )
}

const make = Effect.fnUntraced(function* (): Effect.fn.Return<MemoryEtcd["Service"], never, Scope.Scope> {
  const world = yield* MemoryWorld.make
  const scope = yield* Effect.scope
  const network: Network = { cuts: new Set(), faults: () => undefined }
  return MemoryEtcd.of({
    connection: (host) => makeConnection(host, world, network, scope),
    setFaults: (faults) => {
      network.faults = faults
    },
    cut: (host) => {
      network.cuts.add(host)
      world.endWatches(connectionLost(host), host)
    },
    mend: (host) => {
      network.cuts.delete(host)
    },
    compact: () => world.keys.compact(),
    backup: () => world.backup(),
    restore: (backup) => world.restore(backup, connectionLost("all")),
    entries: () =>
      world.keys.read("").flatMap(({ key, value }) => (value === "" ? [] : [[key, value] as const]))
  })
})

/** What is between the hosts and etcd. */
interface Network {
  readonly cuts: Set<string>
  faults: (host: string, operation: string) => Fault | undefined
}

const errorOf = (host: string, reason: ClusterErrorReason, detail: string, mayBeDone: boolean) =>
  new ClusterError({ reason, endpoint: `memory for ${host}`, detail, mayBeDone })

const connectionLost = (host: string) => errorOf(host, "Unreachable", "the connection was lost", false)

const makeConnection = (
  host: string,
  world: MemoryWorld,
  network: Network,
  scope: Scope.Scope
): Etcd["Service"] => {
  const counts = { requests: 0, writes: 0 }
  const failures = { Unreachable: 0, Denied: 0, Full: 0, Refused: 0 }

  const exchange = <A, E>(
    operation: string,
    run: Effect.Effect<A, E>
  ): Effect.Effect<A, E | ClusterError> => {
    const {
      lose,
      requestDelay = Duration.zero,
      replyDelay = Duration.zero
    } = network.faults(host, operation) ?? {}
    const noAnswer = Effect.andThen(
      Effect.sleep(memoryTimeout),
      Effect.fail(errorOf(host, "Unreachable", "no answer", true))
    )
    if (lose === "request" || network.cuts.has(host)) return noAnswer
    if (lose === undefined && Duration.isZero(requestDelay) && Duration.isZero(replyDelay)) return run
    return Effect.gen(function* () {
      const answer = yield* Deferred.make<A, E>()
      const carriedOut = Effect.gen(function* () {
        yield* Effect.sleep(requestDelay)
        if (network.cuts.has(host)) return
        const exit = yield* Effect.exit(run)
        yield* Effect.sleep(replyDelay)
        if (lose === undefined && !network.cuts.has(host)) yield* Deferred.done(answer, exit)
      })
      yield* Effect.forkIn(carriedOut, scope, { startImmediately: true })
      return yield* Effect.raceFirst(Deferred.await(answer), noAnswer)
    })
  }

  const request = <A, E>(operation: string, run: Effect.Effect<A, E>): Effect.Effect<A, E | ClusterError> =>
    stepped<A, E | ClusterError>(
      `Etcd.${operation}`,
      (injected) => errorOf(host, "Refused", injected.message, false),
      () => {
        counts.requests++
        return exchange(operation, run)
      }
    ).pipe(
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error instanceof ClusterError) failures[error.reason]++
        })
      )
    )

  return {
    transact: (transaction) =>
      Effect.suspend(() => {
        if (mayWrite(transaction)) counts.writes++
        if (operationsOf(transaction) > mostOperations)
          return Effect.fail(errorOf(host, "Refused", "too many operations in txn request", false))
        return request("transact", world.transact(transaction))
      }),
    page: (prefix, options) => request("page", world.page(prefix, options)),
    watch: (prefix, revision) =>
      Stream.unwrap(request("watch", Effect.succeed(world.watch(host, prefix, revision)))),
    grant: (ttl) => request("grant", world.grant(ttl)),
    keepAlive: (lease) => request("keepAlive", world.keepAlive(lease)),
    revoke: (lease) => request("revoke", world.revoke(lease)),
    leaseState: (lease) => request("leaseState", world.leaseState(lease)),
    counts: Effect.sync(() => ({ ...counts, failures: { ...failures } }))
  }
}

/** Those of nested transactions count beside those of the one that they are in. */
const operationsOf = ({ compare, success, failure = [] }: Transaction): number => {
  const nested = [...success, ...failure].map((operation) =>
    operation._tag === "Transaction" ? operationsOf(operation.transaction) : 0
  )
  return Math.max(compare.length, success.length, failure.length) + Math.max(0, ...nested)
}

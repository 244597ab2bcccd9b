/** What an etcd in memory holds for all hosts: keys, leases that run out by the `Clock`, and the watches of its hosts. */
import { Cause, type Duration, Effect, FiberMap, Queue, type Scope, Stream } from "effect"
import {
  type ClusterError,
  type Etcd,
  HistoryLost,
  type LeaseId,
  LeaseLost,
  type LeaseState,
  type Transaction,
  type TransactionResult,
  type WatchBatch
} from "./Etcd.ts"
import { MemoryKeys } from "./MemoryKeys.ts"

export interface Backup {
  readonly keys: MemoryKeys
  readonly leases: ReadonlyMap<LeaseId, Duration.Duration>
}

interface Watcher {
  readonly host: string
  readonly prefix: string
  readonly queue: Queue.Queue<WatchBatch, ClusterError | HistoryLost>
  seen: number
}

export class MemoryWorld {
  keys = new MemoryKeys()
  private readonly leases = new Map<LeaseId, Duration.Duration>()
  private readonly watchers = new Set<Watcher>()
  private nextLease = 1
  private readonly ends: FiberMap.FiberMap<LeaseId>

  private constructor(ends: FiberMap.FiberMap<LeaseId>) {
    this.ends = ends
  }

  static readonly make: Effect.Effect<MemoryWorld, never, Scope.Scope> = Effect.map(
    FiberMap.make<LeaseId>(),
    (ends) => new MemoryWorld(ends)
  )

  transact(transaction: Transaction): Effect.Effect<TransactionResult, LeaseLost> {
    return Effect.suspend(() => {
      const result = this.keys.transact(transaction, (lease) => this.leases.has(lease))
      if (typeof result === "string") return Effect.fail(new LeaseLost({ lease: result }))
      this.notify()
      return Effect.succeed(result)
    })
  }

  page(prefix: string, { limit, after, revision }: Parameters<Etcd["Service"]["page"]>[1]) {
    return Effect.suspend(() =>
      revision !== undefined && (revision < this.keys.compacted || revision > this.keys.revision)
        ? Effect.fail(new HistoryLost({ revision }))
        : Effect.succeed(this.keys.page(prefix, limit, after, revision))
    )
  }

  watch(host: string, prefix: string, after: number): Stream.Stream<WatchBatch, ClusterError | HistoryLost> {
    const begin = Effect.gen({ self: this }, function* () {
      if (after < this.keys.compacted) return yield* new HistoryLost({ revision: after })
      const queue = yield* Queue.unbounded<WatchBatch, ClusterError | HistoryLost>()
      const watcher: Watcher = { host, prefix, queue, seen: after }
      this.watchers.add(watcher)
      Queue.offerUnsafe(queue, { revision: after, changes: [] })
      this.notify()
      return watcher
    })
    const watcher = Effect.acquireRelease(begin, (each) => Effect.sync(() => this.watchers.delete(each)))
    return Stream.unwrap(Effect.map(watcher, ({ queue }) => Stream.fromQueue(queue)))
  }

  /** Ends the watches of a host, or all watches, with this error. */
  endWatches(error: ClusterError, host?: string): void {
    for (const watcher of [...this.watchers]) {
      if (host !== undefined && watcher.host !== host) continue
      this.watchers.delete(watcher)
      Queue.failCauseUnsafe(watcher.queue, Cause.fail(error))
    }
  }

  grant(ttl: Duration.Duration): Effect.Effect<LeaseId> {
    return Effect.suspend(() => {
      const lease = String(this.nextLease++)
      return Effect.as(this.start(lease, ttl), lease)
    })
  }

  keepAlive(lease: LeaseId): Effect.Effect<void, LeaseLost> {
    return Effect.suspend(() => {
      const ttl = this.leases.get(lease)
      return ttl === undefined ? Effect.fail(new LeaseLost({ lease })) : this.start(lease, ttl)
    })
  }

  revoke(lease: LeaseId): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.end(lease)
      return FiberMap.remove(this.ends, lease)
    })
  }

  leaseState(lease: LeaseId): Effect.Effect<LeaseState | undefined> {
    return Effect.sync(() => {
      const granted = this.leases.get(lease)
      return granted === undefined ? undefined : { granted, keys: this.keys.onLease(lease) }
    })
  }

  backup(): Backup {
    return { keys: new MemoryKeys(this.keys), leases: new Map(this.leases) }
  }

  restore(backup: Backup, error: ClusterError): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.keys = new MemoryKeys(backup.keys)
      this.leases.clear()
      this.endWatches(error)
      return Effect.andThen(
        FiberMap.clear(this.ends),
        Effect.forEach(backup.leases, ([lease, ttl]) => this.start(lease, ttl), { discard: true })
      )
    })
  }

  /** It lives for its whole TTL from now on. */
  private start(lease: LeaseId, ttl: Duration.Duration): Effect.Effect<void> {
    this.leases.set(lease, ttl)
    const end = Effect.sync(() => this.end(lease))
    return Effect.asVoid(FiberMap.run(this.ends, lease, Effect.andThen(Effect.sleep(ttl), end)))
  }

  private end(lease: LeaseId): void {
    if (!this.leases.delete(lease)) return
    this.keys.delete(this.keys.onLease(lease))
    this.notify()
  }

  private notify(): void {
    for (const watcher of this.watchers) {
      const batches = this.keys.changes(watcher.prefix, watcher.seen)
      for (const batch of batches) Queue.offerUnsafe(watcher.queue, batch)
      watcher.seen = Math.max(watcher.seen, this.keys.revision)
    }
  }
}

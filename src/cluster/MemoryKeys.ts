/** The keys of an etcd in memory, with their versions since the last compaction. Synchronous; knows no time and no lease. */
import type {
  Compare,
  Entry,
  LeaseId,
  Operation,
  Page,
  Transaction,
  TransactionResult,
  WatchBatch,
  WatchChange
} from "./Etcd.ts"

/** `entry` is `undefined` where the key was deleted. */
interface Version {
  readonly revision: number
  readonly entry: Entry | undefined
}

type Writes = Map<string, Entry | undefined>

export class MemoryKeys {
  revision = 1
  /** Revisions before this one can't be read, and changes up to it can't be watched. */
  compacted = 0
  private readonly versions: Map<string, ReadonlyArray<Version>>

  constructor(from?: MemoryKeys) {
    this.versions = new Map(from?.versions)
    if (from === undefined) return
    this.revision = from.revision
    this.compacted = from.compacted
  }

  read(prefix: string, at = this.revision): ReadonlyArray<Entry> {
    const found: Array<Entry> = []
    for (const [key, versions] of this.versions) {
      if (!key.startsWith(prefix)) continue
      const entry = versions.findLast(({ revision }) => revision <= at)?.entry
      if (entry !== undefined) found.push(entry)
    }
    return found.sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  page(prefix: string, limit: number, after: string | undefined, revision = this.revision): Page {
    const entries = this.read(prefix, revision).filter(({ key }) => after === undefined || key > after)
    return { revision, entries: entries.slice(0, limit), more: entries.length > limit }
  }

  get(key: string): Entry | undefined {
    return this.versions.get(key)?.at(-1)?.entry
  }

  onLease(lease: LeaseId): ReadonlyArray<string> {
    return this.read("").flatMap((entry) => (entry.lease === lease ? [entry.key] : []))
  }

  /** Returns a lease that a key would be put on and that has ended; then nothing is changed. */
  transact(transaction: Transaction, isAlive: (lease: LeaseId) => boolean): TransactionResult | LeaseId {
    const writes: Writes = new Map()
    const { succeeded, reads } = this.run(transaction, writes)
    for (const entry of writes.values())
      if (entry?.lease !== undefined && !isAlive(entry.lease)) return entry.lease
    this.commit(writes)
    return { succeeded, reads, revision: this.revision }
  }

  delete(keys: ReadonlyArray<string>): void {
    this.commit(new Map(keys.map((key) => [key, undefined])))
  }

  compact(): void {
    this.compacted = this.revision
    for (const [key, versions] of this.versions) {
      const [last] = versions.slice(-1)
      if (last?.entry === undefined) this.versions.delete(key)
      else this.versions.set(key, [last])
    }
  }

  /** One batch for each revision after this one. */
  changes(prefix: string, after: number): ReadonlyArray<WatchBatch> {
    const changed = [...this.versions].flatMap(([key, versions]) =>
      key.startsWith(prefix)
        ? versions.flatMap(({ revision, entry }): ReadonlyArray<WatchChange & { at: number }> => {
            if (revision <= after) return []
            return entry === undefined
              ? [{ _tag: "Delete", key, revision, at: revision }]
              : [{ _tag: "Put", entry, at: revision }]
          })
        : []
    )
    return [...Map.groupBy(changed, ({ at }) => at)]
      .sort(([a], [b]) => a - b)
      .map(([revision, changes]) => ({ revision, changes: changes.map(({ at, ...change }) => change) }))
  }

  private run(transaction: Transaction, writes: Writes): Omit<TransactionResult, "revision"> {
    const now = (key: string) => (writes.has(key) ? writes.get(key) : this.get(key))
    const succeeded = transaction.compare.every((compare) => holds(compare, now(compare.key)))
    const reads: Array<ReadonlyArray<Entry>> = []
    for (const operation of (succeeded ? transaction.success : transaction.failure) ?? []) {
      if (operation._tag === "Read") reads.push(this.readWith(operation.prefix, writes))
      else if (operation._tag === "Transaction") this.run(operation.transaction, writes)
      else if (operation._tag === "Delete") {
        if (now(operation.key) !== undefined) writes.set(operation.key, undefined)
      } else writes.set(operation.key, this.put(operation, now(operation.key)))
    }
    return { succeeded, reads }
  }

  private put({ key, value, lease }: Extract<Operation, { _tag: "Put" }>, before: Entry | undefined): Entry {
    const revision = this.revision + 1
    return {
      key,
      value: value ?? before?.value ?? "",
      createRevision: before?.createRevision ?? revision,
      revision,
      lease
    }
  }

  private readWith(prefix: string, writes: Writes): ReadonlyArray<Entry> {
    const unwritten = this.read(prefix).filter(({ key }) => !writes.has(key))
    const written = [...writes.values()].filter((entry) => entry?.key.startsWith(prefix) === true)
    return [...unwritten, ...(written as ReadonlyArray<Entry>)].sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  private commit(writes: Writes): void {
    if (writes.size === 0) return
    this.revision++
    for (const [key, entry] of writes)
      this.versions.set(key, [...(this.versions.get(key) ?? []), { revision: this.revision, entry }])
  }
}

const holds = (compare: Compare, entry: Entry | undefined): boolean => {
  switch (compare._tag) {
    case "Revision":
      return (entry?.revision ?? 0) === compare.is
    case "CreateRevision":
      return (entry?.createRevision ?? 0) === compare.is
    case "CreatedAfter":
      return (entry?.createRevision ?? 0) > compare.revision
    case "Lease":
      return entry?.lease === compare.is
  }
}

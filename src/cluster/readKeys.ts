import { Effect } from "effect"
import type { ClusterError, Entry, Etcd, Transaction, TransactionResult } from "./Etcd.ts"

/** All keys with the prefix as they are now. */
export const readKeys = (
  etcd: Etcd["Service"],
  prefix: string
): Effect.Effect<{ readonly revision: number; readonly entries: ReadonlyArray<Entry> }, ClusterError> =>
  Effect.map(
    transactOnNoLease(etcd, { compare: [], success: [{ _tag: "Read", prefix }] }),
    ({ revision, reads }) => ({ revision, entries: reads[0] ?? [] })
  )

/** A transaction that puts nothing on a lease. */
export const transactOnNoLease = (
  etcd: Etcd["Service"],
  transaction: Transaction
): Effect.Effect<TransactionResult, ClusterError> =>
  Effect.catchTag(etcd.transact(transaction), "LeaseLost", Effect.die)

import { Effect } from "effect"
import type { ClusterError, Entry, Etcd } from "./Etcd.ts"

/** All keys with the prefix as they are now. */
export const readKeys = (
  etcd: Etcd["Service"],
  prefix: string
): Effect.Effect<{ readonly revision: number; readonly entries: ReadonlyArray<Entry> }, ClusterError> =>
  etcd.transact({ compare: [], success: [{ _tag: "Read", prefix }] }).pipe(
    Effect.map(({ revision, reads }) => ({ revision, entries: reads[0] ?? [] })),
    // Nothing is put on a lease.
    Effect.catchTag("LeaseLost", Effect.die)
  )

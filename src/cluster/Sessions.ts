/**
 * A host's place in the cluster: its key, and the leases that its claims hang on. The TTL of a lease can't be changed, so
 * where another one is wanted, keys move to another lease; the host's key names both until all have. It hangs on the one
 * that lives longer meanwhile, so that nothing moved is ever without it.
 */
import { Duration, Effect } from "effect"
import { type ClusterKeys, type HostRecord, hostRecord, hostText } from "./ClusterKeys.ts"
import { HostTaken, type Opened, type OpenOptions, type Session } from "./ClusterState.ts"
import {
  type ClusterError,
  type Etcd,
  type LeaseId,
  LeaseLost,
  mostOperations,
  type Operation,
  type Transaction
} from "./Etcd.ts"
import { type LeaseSpan, startSpan } from "./LeaseSpan.ts"
import { readKeys } from "./readKeys.ts"

/** Each is a transaction of its own within one request. */
const movesAtOnce = mostOperations / 2

export const makeSessions = (etcd: Etcd["Service"], keys: ClusterKeys) => ({
  open: Effect.fn("ClusterStore.open")(function* (
    options: OpenOptions
  ): Effect.fn.Return<Opened, ClusterError | HostTaken> {
    while (true) {
      const opened = yield* Effect.catchTag(tryOpen(etcd, keys, options), "LeaseLost", () => Effect.undefined)
      if (opened !== undefined) return opened
    }
  }),

  renew: Effect.fn("ClusterStore.renew")(function* ({
    host,
    lease,
    ttlMillis
  }: Session): Effect.fn.Return<LeaseSpan, ClusterError | LeaseLost> {
    const span = yield* startSpan(ttlMillis)
    yield* etcd.keepAlive(lease)
    // A leader that hung, and is none any more, still renews leases; what the others have is read from most members.
    const found = yield* readHost(etcd, keys, host)
    if (found?.entry.lease !== lease) return yield* new LeaseLost({ lease })
    return span
  }),

  leave: Effect.fn("ClusterStore.leave")(function* ({ host, lease }: Session, absence: Duration.Duration) {
    const found = yield* readHost(etcd, keys, host)
    if (found?.record === undefined || !found.record.leases.includes(lease))
      return yield* new LeaseLost({ lease })
    const leases = (yield* living(etcd, found.record.leases)).map((each) => each.lease)
    const to = yield* etcd.grant(absence)
    const record = { ...found.record, absent: true, leases: [to, ...leases] }
    const key = keys.host(host)
    const begun = yield* writeHost(etcd, key, record, to, found.entry.revision)
    const isLeft = begun !== undefined && (yield* moveHost(etcd, { key, revision: begun }, record))
    if (!isLeft) return yield* new LeaseLost({ lease })
  }),

  expel: Effect.fn("ClusterStore.expel")(function* (host: string) {
    const found = yield* readHost(etcd, keys, host)
    if (found === undefined) return false
    const leases = new Set([...(found.record?.leases ?? []), found.entry.lease])
    for (const lease of leases) if (lease !== undefined) yield* etcd.revoke(lease)
    return true
  })
})

/** `undefined`: another process wrote the host's key, or a lease ended on the way. */
const tryOpen = Effect.fnUntraced(function* (
  etcd: Etcd["Service"],
  keys: ClusterKeys,
  { host, identity, address, ttl }: OpenOptions
) {
  const found = yield* readHost(etcd, keys, host)
  if (found !== undefined && found.record?.identity !== identity)
    return yield* new HostTaken({ host, address: found.record?.address })
  const earlier = yield* living(etcd, found?.record?.leases ?? [])
  const same = earlier.find(({ granted }) => Duration.equals(granted, ttl))?.lease
  const ttlMillis = Duration.toMillis(ttl)
  const span = yield* startSpan(ttlMillis)
  const lease = same ?? (yield* etcd.grant(ttl))
  if (same !== undefined) yield* etcd.keepAlive(same)
  const others = earlier.map((each) => each.lease).filter((each) => each !== lease)
  const record = { identity, ...(address === undefined ? {} : { address }), leases: [lease, ...others] }
  const meanwhile = others.length === 0 ? lease : (found?.entry.lease ?? lease)
  const key = keys.host(host)
  const begun = yield* writeHost(etcd, key, record, meanwhile, found?.entry.revision ?? 0)
  // Once the record names the lease, a successor may use it.
  if (begun === undefined && same === undefined) yield* etcd.revoke(lease)
  const isOurs = begun !== undefined && (yield* moveHost(etcd, { key, revision: begun }, record))
  return isOurs ? { session: { host, lease, ttlMillis }, span } : undefined
})

/** Those that have not ended. */
const living = Effect.fnUntraced(function* (etcd: Etcd["Service"], leases: ReadonlyArray<LeaseId>) {
  const found: Array<{ readonly lease: LeaseId; readonly granted: Duration.Duration }> = []
  for (const lease of leases) {
    const state = yield* etcd.leaseState(lease)
    if (state !== undefined) found.push({ lease, granted: state.granted })
  }
  return found
})

const readHost = Effect.fnUntraced(function* (etcd: Etcd["Service"], keys: ClusterKeys, host: string) {
  const [entry] = (yield* readKeys(etcd, keys.host(host))).entries
  return entry === undefined ? undefined : { entry, record: hostRecord(entry) }
})

interface HostKey {
  readonly key: string
  readonly revision: number
}

/** Moves everything to the first of the leases of a record that was written. Returns whether it is still as written. */
const moveHost = Effect.fnUntraced(function* (etcd: Etcd["Service"], host: HostKey, record: HostRecord) {
  const [to, ...others] = record.leases
  if (to === undefined) return false
  if (others.length === 0) return true
  for (const from of others) if (!(yield* moveKeys(etcd, from, to, host))) return false
  const ended = yield* writeHost(etcd, host.key, { ...record, leases: [to] }, to, host.revision)
  if (ended !== undefined) for (const from of others) yield* etcd.revoke(from)
  return ended !== undefined
})

/** Returns the key's new revision, `undefined` where its revision was not this one. */
const writeHost = Effect.fnUntraced(function* (
  etcd: Etcd["Service"],
  key: string,
  record: HostRecord,
  lease: LeaseId,
  revision: number
) {
  const value = hostText(record)
  const read: Operation = { _tag: "Read", prefix: key }
  const { reads } = yield* etcd.transact({
    compare: [{ _tag: "Revision", key, is: revision }],
    success: [{ _tag: "Put", key, value, lease }, read],
    failure: [read]
  })
  const [entry] = reads[0] ?? []
  // It is ours also where the first of two attempts wrote it.
  const isOurs = entry?.value === value && entry.lease === lease && entry.revision > revision
  return isOurs ? entry.revision : undefined
})

/**
 * Moves every key that hangs on `from`, but for the host's, as long as that one has its revision: a request that arrives
 * late would move keys to a lease that a successor has done with. Returns whether it did, and fails where the lease ends
 * before all have moved.
 */
const moveKeys = Effect.fnUntraced(function* (
  etcd: Etcd["Service"],
  from: LeaseId,
  to: LeaseId,
  host: HostKey
) {
  yield* etcd.keepAlive(from)
  while (true) {
    const state = yield* etcd.leaseState(from)
    if (state === undefined) return yield* new LeaseLost({ lease: from })
    const moving = state.keys.filter((key) => key !== host.key)
    if (moving.length === 0) return true
    for (let start = 0; start < moving.length; start += movesAtOnce) {
      const { succeeded } = yield* etcd.transact({
        compare: [{ _tag: "Revision", key: host.key, is: host.revision }],
        success: moving
          .slice(start, start + movesAtOnce)
          .map((key): Operation => ({ _tag: "Transaction", transaction: moveKey(key, from, to) }))
      })
      if (!succeeded) return false
    }
  }
})

const moveKey = (key: string, from: LeaseId, to: LeaseId): Transaction => ({
  compare: [{ _tag: "Lease", key, is: from }],
  success: [{ _tag: "Put", key, lease: to }]
})

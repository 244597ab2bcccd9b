/**
 * The part of etcd v3's API that a cluster of ours needs: transactions that compare revisions, leases, reads in pages at
 * one revision, a watch from a revision. It owns the connection; what is written where is `ClusterStore`'s.
 */
import { Context, type Duration, type Effect, Schema, type Stream } from "effect"

/** A signed 64-bit integer in decimals; no number of JavaScript can hold all of them. */
export type LeaseId = string

/** What etcd stores under a key. `createRevision` stays over later writes, `revision` is that of the last one. */
export interface Entry {
  readonly key: string
  readonly value: string
  readonly createRevision: number
  readonly revision: number
  /** `undefined`: the key stays until it is deleted. */
  readonly lease: LeaseId | undefined
}

/** A key that is absent has both revisions 0, and no lease. */
export type Compare =
  | { readonly _tag: "Revision"; readonly key: string; readonly is: number }
  | { readonly _tag: "CreateRevision"; readonly key: string; readonly is: number }
  | { readonly _tag: "CreatedAfter"; readonly key: string; readonly revision: number }
  | { readonly _tag: "Lease"; readonly key: string; readonly is: LeaseId }

/** `value`: without one, the key keeps the value that it has, and must exist. `Read`: all keys with this prefix. */
export type Operation =
  | {
      readonly _tag: "Put"
      readonly key: string
      readonly value?: string | undefined
      readonly lease?: LeaseId | undefined
    }
  | { readonly _tag: "Delete"; readonly key: string }
  | { readonly _tag: "Read"; readonly prefix: string }
  | { readonly _tag: "Transaction"; readonly transaction: Transaction }

/** Runs `success` if all comparisons hold, else `failure`: one revision, all or nothing. */
export interface Transaction {
  readonly compare: ReadonlyArray<Compare>
  readonly success: ReadonlyArray<Operation>
  readonly failure?: ReadonlyArray<Operation> | undefined
}

/** Whether one of its branches writes. */
export const mayWrite = ({ success, failure = [] }: Transaction): boolean =>
  [...success, ...failure].some(({ _tag }) => _tag !== "Read")

export interface TransactionResult {
  readonly succeeded: boolean
  /** The store's after the transaction. */
  readonly revision: number
  /** The entries that each `Read` of the branch found, sorted by key; those of nested transactions are left out. */
  readonly reads: ReadonlyArray<ReadonlyArray<Entry>>
}

/** In a branch of a transaction, those of nested ones counted in, and as many comparisons; etcd's default. */
export const mostOperations = 128

export interface Page {
  readonly revision: number
  readonly entries: ReadonlyArray<Entry>
  /** More keys follow the last one. */
  readonly more: boolean
}

/** What was written in one revision, or in several that came at once; in order. */
export interface WatchBatch {
  /** Every change up to here has been seen. */
  readonly revision: number
  readonly changes: ReadonlyArray<WatchChange>
}

export type WatchChange =
  | { readonly _tag: "Put"; readonly entry: Entry }
  | { readonly _tag: "Delete"; readonly key: string; readonly revision: number }

/** What a lease has left. */
export interface LeaseState {
  readonly granted: Duration.Duration
  readonly keys: ReadonlyArray<string>
}

/**
 * `Unreachable`: no endpoint answered in time, or the cluster has no leader. `Denied`: the user, the password, or the
 * role. `Full`: etcd is out of space. `Refused`: anything else that etcd says no to.
 */
export const ClusterErrorReason = Schema.Literals(["Unreachable", "Denied", "Full", "Refused"])
export type ClusterErrorReason = typeof ClusterErrorReason.Type

export class ClusterError extends Schema.TaggedError<ClusterError>()("ClusterError", {
  reason: ClusterErrorReason,
  /** The one asked last; `undefined` where it was not for one of them. */
  endpoint: Schema.UndefinedOr(Schema.String),
  detail: Schema.String,
  /** The request may have been carried out, or still will be. */
  mayBeDone: Schema.Boolean
}) {
  override get message(): string {
    return `etcd${this.endpoint === undefined ? "" : ` at ${this.endpoint}`}: ${this.detail}`
  }
}

/** The lease has ended: it ran out or was revoked, and its keys are gone; or etcd came back from a backup without it. */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", { lease: Schema.String }) {
  override get message(): string {
    return `lease ${this.lease} has ended`
  }
}

/**
 * The changes since this revision can't be had: they were compacted, or etcd was restored from a backup, which this
 * revision may not be of.
 */
export class HistoryLost extends Schema.TaggedError<HistoryLost>()("HistoryLost", {
  revision: Schema.Number
}) {
  override get message(): string {
    return `etcd no longer has the changes since revision ${this.revision}`
  }
}

/** Since the layer was made, for metrics; each attempt counts. */
export interface EtcdCounts {
  readonly requests: number
  /** Transactions that may write. */
  readonly writes: number
  readonly failures: Readonly<Record<ClusterErrorReason, number>>
}

export class Etcd extends Context.Service<
  Etcd,
  {
    /**
     * Linearizable. After an error with `mayBeDone` it may have been carried out, or be carried out later. It may be carried
     * out twice, where the connection is lost before the reply: the second time it compares with what the first has
     * written. `LeaseLost`: a `Put` names a lease that has ended; nothing was changed.
     */
    readonly transact: (
      transaction: Transaction
    ) => Effect.Effect<TransactionResult, ClusterError | LeaseLost>
    /**
     * The first `limit` entries with the prefix whose keys are greater than `after`, as they were at `revision`; as
     * they are now without one. `HistoryLost`: that revision was compacted, or etcd never had it.
     */
    readonly page: (
      prefix: string,
      options: {
        readonly limit: number
        readonly after?: string | undefined
        readonly revision?: number | undefined
      }
    ) => Effect.Effect<Page, ClusterError | HistoryLost>
    /**
     * Every change below the prefix after `revision`, each once and in order. A batch without changes comes first, as
     * soon as etcd watches. Fails when the connection is lost or the endpoint has lost its leader; never ends.
     * `HistoryLost`: that revision was compacted. What etcd has not reached yet is waited for.
     */
    readonly watch: (
      prefix: string,
      revision: number
    ) => Stream.Stream<WatchBatch, ClusterError | HistoryLost>
    /** Grants a lease with a new id. One whose reply is lost ends by itself. */
    readonly grant: (ttl: Duration.Duration) => Effect.Effect<LeaseId, ClusterError>
    /** It lives for its whole TTL again, counted from when etcd read this. */
    readonly keepAlive: (lease: LeaseId) => Effect.Effect<void, ClusterError | LeaseLost>
    /** Ends it, and deletes its keys in one revision. Does nothing for one that has ended. */
    readonly revoke: (lease: LeaseId) => Effect.Effect<void, ClusterError>
    /** `undefined`: it has ended. */
    readonly leaseState: (lease: LeaseId) => Effect.Effect<LeaseState | undefined, ClusterError>
    readonly counts: Effect.Effect<EtcdCounts>
  }
>()("portmapper/cluster/Etcd") {}

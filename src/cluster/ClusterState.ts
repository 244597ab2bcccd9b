/**
 * What a cluster's store says of it: claims, cells, hosts, and what changes of them.
 */
import { type Duration, Schema } from "effect"
import type { ClusterError, LeaseId } from "./Etcd.ts"
import type { LeaseSpan } from "./LeaseSpan.ts"

/** `name` is unique within its cell. `value` is the caller's, JSON for instance: what the claim covers, and for whom. */
export interface Claim {
  readonly name: string
  readonly value: string
}

/** `cell` is for instance `125`, and has no slash. */
export interface ClaimName {
  readonly cell: string
  readonly name: string
}

/**
 * A claim that somebody holds. `revision` is its epoch: it is given once, in the transaction that made the claim, and
 * stays as the claim moves from lease to lease.
 */
export interface HeldClaim extends Claim, ClaimName {
  readonly host: string
  readonly lease: LeaseId
  readonly revision: number
}

/** A claim of that revision alone, not one that was made anew under the same name. */
export type HeldName = ClaimName & Pick<HeldClaim, "revision">

/** A cell as it was at revision `readAt`. `revision`: of the last claim in it; 0 before the first. */
export interface CellState {
  readonly cell: string
  readonly revision: number
  readonly readAt: number
  readonly claims: ReadonlyArray<HeldClaim>
}

/** What a claim compares the cell with. */
export type SeenCell = Pick<CellState, "cell" | "revision">

/** A host that is there, or was stopped and keeps its claims while it is absent. */
export interface ClusterHost {
  readonly host: string
  readonly address: string | undefined
  readonly isAbsent: boolean
  readonly revision: number
}

/** A host's place in the cluster, and what its claims hang on. Plain data: a takeover hands it over as it is. */
export interface Session {
  readonly host: string
  readonly lease: LeaseId
  readonly ttlMillis: number
}

export interface Opened {
  readonly session: Session
  readonly span: LeaseSpan
}

/** `Claimed`: all of them are held, at this revision. `Moved`: none is, since others claimed in the cell meanwhile. */
export type ClaimOutcome =
  | { readonly _tag: "Claimed"; readonly state: CellState }
  | { readonly _tag: "Moved"; readonly state: CellState }

export interface Snapshot {
  readonly _tag: "Snapshot"
  readonly revision: number
  readonly hosts: ReadonlyArray<ClusterHost>
  readonly cells: ReadonlyArray<CellState>
}

/**
 * `Snapshot`: all there is; comes first, and again whenever changes may have been missed. It may be *older* than what
 * came before it: etcd restored from a backup. `Changed`: what followed. `Interrupted`: what comes next will be late.
 */
export type ClusterEvent =
  | Snapshot
  | { readonly _tag: "Changed"; readonly revision: number; readonly changes: ReadonlyArray<ClusterChange> }
  | { readonly _tag: "Interrupted"; readonly error: ClusterError }

/** `Claimed` also when a claim moved to another lease of its host. `revision` is that of the change. */
export type ClusterChange =
  | { readonly _tag: "Claimed"; readonly claim: HeldClaim; readonly revision: number }
  | { readonly _tag: "Released"; readonly claim: ClaimName; readonly revision: number }
  | { readonly _tag: "CellMoved"; readonly cell: string; readonly revision: number }
  | { readonly _tag: "HostCame"; readonly host: ClusterHost; readonly revision: number }
  | { readonly _tag: "HostLeft"; readonly host: string; readonly revision: number }

/** Another machine uses the host's name. */
export class HostTaken extends Schema.TaggedError<HostTaken>()("HostTaken", {
  host: Schema.String,
  address: Schema.UndefinedOr(Schema.String)
}) {
  override get message(): string {
    const where = this.address === undefined ? "" : ` at ${this.address}`
    return `another machine${where} is host ${this.host} of this cluster: give each its own --cluster-host`
  }
}

export interface OpenOptions {
  readonly host: string
  /** Tells machines that call themselves alike from each other; the same after each restart of this one. */
  readonly identity: string
  /** Where others reach this host; informative. */
  readonly address?: string | undefined
  readonly ttl: Duration.Duration
}

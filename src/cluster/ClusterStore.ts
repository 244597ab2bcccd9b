/**
 * Who holds what in a cluster: claims in cells, each on the lease of its host. What overlaps what is the caller's pure
 * decision; this makes sure that no other claim is made in the cell meanwhile. The truth is etcd's.
 *
 * Keys, below `/portmapper/NAME/`:
 *
 *     hosts/HOST/         on the host's lease: who it is, and its leases
 *     cells/CELL/         stays: its revision moves with every claim in the cell
 *     cells/CELL/NAME     on its host's lease: a claim, `HOST VALUE`
 */
import { Context, Duration, Effect, Layer, type Stream } from "effect"
import { makeClaiming } from "./Claiming.ts"
import { clusterKeys } from "./ClusterKeys.ts"
import type {
  CellState,
  Claim,
  ClaimOutcome,
  ClusterEvent,
  HeldClaim,
  HeldName,
  HostTaken,
  Opened,
  OpenOptions,
  SeenCell,
  Session,
  Snapshot
} from "./ClusterState.ts"
import { readAll, watch } from "./ClusterWatch.ts"
import { type ClusterError, Etcd, type EtcdCounts, type LeaseLost } from "./Etcd.ts"
import type { LeaseSpan } from "./LeaseSpan.ts"
import { retryEtcd } from "./retryEtcd.ts"
import { makeSessions } from "./Sessions.ts"

export interface ClusterStoreOptions {
  /** The cluster's name; the keys of two names never meet. */
  readonly name: string
  /** How long a claim takes at most, and any other request. Default 3 s. */
  readonly patience?: Duration.Duration | undefined
}

export class ClusterStore extends Context.Service<
  ClusterStore,
  {
    /**
     * Takes the host's place. What the same machine still holds from before, after a crash or a clean stop, goes on: on the
     * same lease if its TTL is the one asked for, else on a new one. Which claims these are the next `Snapshot` says. After
     * a failure nothing is lost, and it may be called again.
     */
    readonly open: (options: OpenOptions) => Effect.Effect<Opened, ClusterError | HostTaken>
    /**
     * Keeps the session, and with it the host's claims. `LeaseLost`: the host holds nothing any more; others may hold
     * what it did. It has to `open` again, and to claim again what it serves.
     */
    readonly renew: (session: Session) => Effect.Effect<LeaseSpan, ClusterError | LeaseLost>
    /**
     * Lets the host's place and claims live for `absence` without being renewed: the last thing before a clean stop.
     * After a failure or a kill some claims live for it, and the others for another TTL at most.
     */
    readonly leave: (
      session: Session,
      absence: Duration.Duration
    ) => Effect.Effect<void, ClusterError | LeaseLost>
    /**
     * Claims all or none, if no claim was made in the cell since `seen.revision`: the caller has decided on `seen` that they
     * overlap nothing, and decides again on the state in `Moved`. Gone claims don't move a cell, so `seen` may name more than
     * there are. Names are new in the cell. Ends within `patience`.
     *
     * After any failure, and an interruption, nothing is held for longer than etcd can't be reached: where no reply came,
     * the store finds out and gives the claims back, before it claims in that cell again, or they go with the lease. A
     * request that is still on its way then is made void by moving the cell.
     */
    readonly claim: (
      session: Session,
      seen: SeenCell,
      claims: ReadonlyArray<Claim>
    ) => Effect.Effect<ClaimOutcome, ClusterError | LeaseLost>
    /** Whether this is a claim of which the store has yet to find out, and which it gives back then. */
    readonly isDoubtful: (claim: HeldClaim) => boolean
    /**
     * Gives claims back, those alone that have the same revision: what was claimed anew under the same name stays.
     * Does nothing for one that is gone. After a failure some may still be held; it may be called again.
     */
    readonly release: (claims: ReadonlyArray<HeldName>) => Effect.Effect<void, ClusterError>
    /**
     * Changes the value of a claim that the session holds, which keeps its revision; moves no cell. Returns false, and does
     * nothing, where the claim is gone, or has moved to another lease.
     */
    readonly update: (
      session: Session,
      claim: HeldName,
      value: string
    ) => Effect.Effect<boolean, ClusterError | LeaseLost>
    /** As it is now. */
    readonly readCell: (cell: string) => Effect.Effect<CellState, ClusterError>
    /** Everything, at one revision. */
    readonly readAll: Effect.Effect<Snapshot, ClusterError>
    /** Never ends and never fails; it reconnects, and reads everything again where the changes meanwhile can't be had. */
    readonly watch: Stream.Stream<ClusterEvent>
    /** Ends the session of any host, and with it all its claims. Returns whether there was one. */
    readonly expel: (host: string) => Effect.Effect<boolean, ClusterError>
    readonly counts: Effect.Effect<EtcdCounts>
  }
>()("portmapper/cluster/ClusterStore") {
  static readonly layer = ({
    name,
    patience = Duration.seconds(3)
  }: ClusterStoreOptions): Layer.Layer<ClusterStore, never, Etcd> =>
    Layer.effect(
      ClusterStore,
      Effect.gen(function* () {
        // A claim may settle the doubts of its cell first, and its error names the reason.
        const etcd = retryEtcd(yield* Etcd, Duration.times(patience, 5 / 6))
        const keys = clusterKeys(name)
        return ClusterStore.of({
          ...makeSessions(etcd, keys),
          ...(yield* makeClaiming(etcd, keys, patience)),
          readAll: readAll(etcd, keys),
          watch: watch(etcd, keys),
          counts: etcd.counts
        })
      })
    )
}

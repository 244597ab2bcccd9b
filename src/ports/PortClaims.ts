/**
 * Who besides this host has a say in which ports it gives out. A mapper claims ports in the cluster before it takes its
 * lock, reserves them on the host under the lock, and gives back what no mapping needs any more. Without a cluster
 * no other host has a say; `src/cluster` is the other implementation.
 */
import { Context, Effect, Schema } from "effect"
import type { GroupsError, ListedMapping } from "../protocol/Driver.ts"
import type { PortRequest } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import type { Claimant, ClusterUnavailable, PortAllocated } from "./PortAllocator.ts"
import type { Frontend } from "./PortTable.ts"

/** A port of the whole cluster, whatever addresses it is published on. */
export interface ClusterPort {
  readonly protocol: Protocol
  readonly port: number
}

/** A port, and for whom it is claimed. */
export interface Claimed extends ClusterPort {
  readonly claimant: Claimant
}

/** What one group needs of the cluster. */
export interface Wanted {
  /** The index of the group, which a refusal names. */
  readonly group: number
  /** At least one; those on loopback addresses are left out. */
  readonly frontends: ReadonlyArray<Frontend>
  readonly ports: PortRequest
  readonly claimant: Claimant
}

/** What the mapper does with its ports. */
export interface Needs {
  /** Whether a mapping, served or in conflict, has this port in the cluster. */
  readonly isNeeded: (port: ClusterPort) => boolean
  /** Ports that a call named and may have made the host's own affair. */
  readonly named: ReadonlyArray<ClusterPort>
  /** Runs something while no change is under way. */
  readonly exclusively: <A>(run: Effect.Effect<A>) => Effect.Effect<A>
}

/** A host that is in no cluster was asked what the hosts of its cluster have. */
export class NoCluster extends Schema.TaggedError<NoCluster>()("NoCluster", {}) {
  override get message(): string {
    return "this host is in no cluster (`serve --cluster`)"
  }
}

export interface PortClaims {
  /**
   * Runs `attempt` while this host may give out what is wanted: with a claim on each exact port, and on enough ports of
   * each range. Runs it again with other ports where the claimed ones of a range turn out to be taken on this host. A
   * refusal changes nothing; it takes three seconds at most. `settle` gives back what was claimed for an attempt that
   * failed.
   */
  readonly during: <A, E>(
    wanted: ReadonlyArray<Wanted>,
    attempt: Effect.Effect<A, GroupsError<E>>
  ) => Effect.Effect<A, GroupsError<E | PortAllocated | ClusterUnavailable>>
  /** Claims, as far as it is free and the cluster answers, what mappings in conflict wait for. */
  readonly reclaim: (wanted: ReadonlyArray<Wanted>) => Effect.Effect<void>
  /** Gives back what the mapper released and needs no more. Called outside of its lock, after each change. */
  readonly settle: (needs: Needs) => Effect.Effect<void>
  /**
   * Called once, before the first `reserve`: the ports of recorded mappings, which stay served while this host finds out
   * which of them are still its own.
   */
  readonly begin: (served: ReadonlyArray<Claimed>) => Effect.Effect<void>
  /** More is known of these ports' containers: others learn of it some time after. */
  readonly describe: (ports: ReadonlyArray<Claimed>) => void
  /** Waits for ports that others have got, or may have by now. */
  readonly lost: Effect.Effect<ReadonlyArray<ClusterPort>>
  /** What all hosts of the cluster have given out. */
  readonly listed: Effect.Effect<ReadonlyArray<ListedMapping>, NoCluster>
  /** Which other host has the port, and for whom: `held by host b, container web`. */
  readonly holderOf: (port: ClusterPort) => string | undefined
}

const noClaims: PortClaims = {
  during: (_, attempt) => attempt,
  reclaim: () => Effect.void,
  settle: () => Effect.void,
  begin: () => Effect.void,
  describe: () => {},
  lost: Effect.never,
  listed: Effect.suspend(() => Effect.fail(new NoCluster())),
  holderOf: () => undefined
}

export const PortClaims = Context.Reference<PortClaims>("portmapper/ports/PortClaims", {
  defaultValue: () => noClaims
})

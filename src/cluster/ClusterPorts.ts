/**
 * The ports of one host, unique in its cluster: a `PortAllocator` for the mapper that gives out only what the host has
 * claimed, and the `PortClaims` that claim it. What it decides is in `Cells` and `Ledger`, how it claims in `Member`,
 * `Blocks` and `PortClaiming`, how it stays a member in `Membership`.
 */
import { Cause, Clock, Context, Duration, Effect, Latch, Layer, Queue, Random, type Scope } from "effect"
import { PortAllocator } from "../ports/PortAllocator.ts"
import { PortClaims } from "../ports/PortClaims.ts"
import type { PortRange } from "../protocol/PortRange.ts"
import { type Hunting, isLow, takeBlocks } from "./Blocks.ts"
import { cellOf, cellSize, holderText, itemOf } from "./Cells.ts"
import { clusterAllocator } from "./ClusterAllocator.ts"
import type { HeldClaim } from "./ClusterState.ts"
import { ClusterStore } from "./ClusterStore.ts"
import type { ClusterError, EtcdCounts, LeaseLost } from "./Etcd.ts"
import { sureMillis } from "./LeaseSpan.ts"
import { listed, publishUses } from "./Listing.ts"
import { giveBack, type Member, type MemberOptions, makeMember, mayGrant } from "./Member.ts"
import { follow, keepMembership } from "./Membership.ts"
import { claimDuring, reclaim } from "./PortClaiming.ts"

export interface ClusterPortsOptions extends MemberOptions {
  /** The range of ephemeral ports. */
  readonly ephemeral: PortRange
  /**
   * What becomes of the claims when the layer closes. `stay`: another process of this host serves on. `leave`: they
   * outlive it for `absence`. `give back`: others may have them at once.
   */
  readonly ending: () => "stay" | "leave" | "give back"
}

export interface ClusterStatus {
  /** How long the lease surely lives on; `undefined` before there is one. */
  readonly leaseMillis: number | undefined
  readonly mayGrant: boolean
  readonly trouble: string | undefined
  /** Of this host. */
  readonly claims: number
  readonly blocks: number
  readonly freeOfBlocks: number
  /** Of all hosts. */
  readonly claimsOfAll: number
  /** Since when the watch has been interrupted. */
  readonly lagMillis: number
  readonly counts: EtcdCounts
}

/** This host's membership of its cluster. */
export class Cluster extends Context.Service<
  Cluster,
  {
    readonly status: Effect.Effect<ClusterStatus>
  }
>()("portmapper/cluster/Cluster") {}

/** Decorates the host's allocator. The layer is built even if the cluster can't be reached. */
export const clusterPorts = (
  options: ClusterPortsOptions
): Layer.Layer<PortAllocator | Cluster, never, PortAllocator | ClusterStore> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const allocator = yield* PortAllocator
      const store = yield* ClusterStore
      const member = yield* makeMember(options, store)
      const claims = yield* portClaims(member, options)
      return Context.make(PortAllocator, clusterAllocator(member, allocator)).pipe(
        Context.add(PortClaims, claims),
        Context.add(Cluster, cluster(member))
      )
    })
  )

const portClaims = Effect.fnUntraced(function* (
  member: Member,
  { ephemeral: range, ending }: ClusterPortsOptions
): Effect.fn.Return<PortClaims, never, Scope.Scope> {
  const { ledger, options } = member
  const hunting: Hunting = { range, from: yield* Random.nextIntBetween(0, 65536 / cellSize) }
  const low = yield* Latch.make()
  const begun = yield* Latch.make()
  yield* Effect.addFinalizer(() => end(member, ending()))
  yield* Effect.forkScoped(Effect.andThen(begun.await, reported(keepMembership(member))))
  yield* Effect.forkScoped(reported(follow(member)))
  yield* Effect.forkScoped(reported(refilling(member, hunting, low)))
  yield* Effect.forkScoped(reported(publishUses(member)))
  return {
    during: (wanted, attempt) => {
      if (wanted.length === 0) return attempt
      // Taken while the call is under way, for the next ones.
      if (isLow(member) && wanted.some(({ ports }) => ports._tag === "Ephemeral")) low.openUnsafe()
      return claimDuring(member, hunting, wanted, attempt)
    },
    reclaim: (wanted) => (wanted.length === 0 ? Effect.void : reclaim(member, wanted)),
    settle: ({ named, isNeeded, exclusively }) =>
      Effect.suspend(() => {
        ledger.touch(named)
        return ledger.hasUnneeded(isNeeded)
          ? Effect.andThen(exclusively(Effect.sync(() => ledger.take(isNeeded))), soonGivenBack(member))
          : Effect.void
      }),
    begin: (served) => {
      for (const port of served) ledger.add(port, undefined)
      return Effect.asVoid(begun.open)
    },
    describe: (ports) => {
      for (const port of ports) ledger.describe(port)
    },
    lost: Queue.takeAll(member.lost),
    listed: Effect.sync(() => listed(member.replica)),
    holderOf: (port) => {
      const held = member.replica
        .cell(cellOf(port.port))
        .claims.find((each) => each.host !== options.host && isAt(each, port))
      return held === undefined ? undefined : holderText(held)
    }
  }
})

const isAt = (held: HeldClaim, { protocol, port }: Parameters<PortClaims["holderOf"]>[0]): boolean => {
  const item = itemOf(held)
  if (item._tag === "Unreadable") return false
  return item._tag === "Port"
    ? item.protocol === protocol && item.port === port
    : item.first <= port && port <= item.last
}

/** Waits for it as long as a caller may want to; what is still owed then is given back with the next renewal. */
const soonGivenBack = (member: Member): Effect.Effect<void> =>
  member.trouble === undefined ? Effect.ignore(withinSeconds(1, giveBack(member))) : Effect.void

const refilling = (member: Member, hunting: Hunting, low: Latch.Latch) =>
  Effect.forever(
    Effect.gen(function* () {
      yield* low.await
      yield* low.close
      const { session } = member
      if (session === undefined || !(yield* mayGrant(member))) return
      // What fails is tried again once a call needs it.
      yield* Effect.ignore(takeBlocks(member, session, hunting, () => !isLow(member)))
    })
  )

/** A defect must not end what keeps the lease. */
const reported = <A>(effect: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.catchCause(effect, (cause) =>
    Cause.hasInterruptsOnly(cause)
      ? Effect.failCause(cause)
      : Effect.logError(`the cluster: internal error: ${Cause.pretty(cause)}`).pipe(
          Effect.andThen(Effect.sleep("1 second")),
          Effect.andThen(reported(effect))
        )
  )

const end = (member: Member, how: ReturnType<ClusterPortsOptions["ending"]>): Effect.Effect<void> => {
  const { session, store, options } = member
  if (session === undefined) return Effect.void
  // The next process has a whole TTL to start in.
  if (how === "stay") return Effect.ignore(withinSeconds(1, store.renew(session)))
  const left: Effect.Effect<unknown, ClusterError | LeaseLost> =
    how === "leave"
      ? Effect.andThen(Effect.ignore(giveBack(member)), store.leave(session, options.absence))
      : store.expel(options.host)
  return withinSeconds(3, left).pipe(
    Effect.catch(({ message }) =>
      Effect.logWarning(`leaving the cluster: ${message}; the claims of this host end with its lease`)
    )
  )
}

/** Also where the caller can't be interrupted, as at the end of a call or of a scope. */
const withinSeconds = <E extends { readonly message: string }>(
  seconds: number,
  effect: Effect.Effect<unknown, E>
): Effect.Effect<void, { readonly message: string }> =>
  Effect.asVoid(
    Effect.timeoutOrElse(Effect.interruptible(effect), {
      duration: Duration.seconds(seconds),
      orElse: () => Effect.fail({ message: `no answer within ${seconds} s` })
    })
  )

const cluster = (member: Member): Cluster["Service"] => {
  const { ledger, replica, store } = member
  return {
    status: Effect.gen(function* () {
      const nowMillis = yield* Clock.currentTimeMillis
      const claimsOfAll = [...replica.claims()].length
      return {
        leaseMillis: member.span === undefined ? undefined : yield* sureMillis(member.span),
        mayGrant: yield* mayGrant(member),
        trouble: member.trouble,
        claims: ledger.ports().length,
        blocks: ledger.blocks().length,
        freeOfBlocks: ledger.free,
        claimsOfAll,
        lagMillis: member.interruptedMillis === undefined ? 0 : nowMillis - member.interruptedMillis,
        counts: yield* store.counts
      }
    })
  }
}

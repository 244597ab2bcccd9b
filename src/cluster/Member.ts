/**
 * This host as a member of the cluster: its session, what it has claimed, and whether it may grant anything. It may not
 * before it knows what it still holds, nor once its lease may have ended; what it serves goes on meanwhile.
 */
import { Clock, type Duration, Effect, Latch, Queue, Semaphore } from "effect"
import type { Claimed, ClusterPort } from "../ports/PortClaims.ts"
import { cellOf, excluderOf } from "./Cells.ts"
import type { CellState, Claim, HeldClaim, Session } from "./ClusterState.ts"
import type { ClusterStore } from "./ClusterStore.ts"
import type { ClusterError, LeaseLost } from "./Etcd.ts"
import { type LeaseSpan, sureMillisBy } from "./LeaseSpan.ts"
import { Ledger } from "./Ledger.ts"
import { Replica } from "./Replica.ts"

export interface MemberOptions {
  /** Its name in the cluster. */
  readonly host: string
  readonly identity: string
  readonly address: string | undefined
  readonly ttl: Duration.Duration
  /** How long claims outlive a clean stop. */
  readonly absence: Duration.Duration
}

export interface Member {
  readonly options: MemberOptions
  readonly store: ClusterStore["Service"]
  readonly ledger: Ledger
  readonly replica: Replica
  session: Session | undefined
  span: LeaseSpan | undefined
  /** Whether it is known what of the ledger is still this host's. */
  isProven: boolean
  /** What the store failed with last; `undefined` while it answers. */
  trouble: string | undefined
  /** Since when the watch has been interrupted. */
  interruptedMillis: number | undefined
  /** Open while this host may grant ports, as far as is known without looking at the clock. */
  readonly granting: Latch.Latch
  /** Something cast doubt on what the ledger says is held. */
  readonly doubt: Queue.Queue<void>
  /** Somebody waits for a renewal: the lease may have ended, or a clock was set forward. */
  readonly renewal: Queue.Queue<void>
  readonly lost: Queue.Queue<ClusterPort>
  /** One claim at a time in a cell; all of them for a moment in which no claim is under way. */
  readonly stripes: ReadonlyArray<Semaphore.Semaphore>
  /** One block at a time is taken; and what is owed is given back by one request at a time. */
  readonly taking: Semaphore.Semaphore
  readonly returning: Semaphore.Semaphore
}

const stripeCount = 16

export const makeMember = Effect.fnUntraced(function* (
  options: MemberOptions,
  store: ClusterStore["Service"]
): Effect.fn.Return<Member> {
  return {
    ...{ options, store },
    ledger: new Ledger(),
    replica: new Replica(),
    ...{ session: undefined, span: undefined, isProven: false },
    ...{ trouble: undefined, interruptedMillis: undefined },
    granting: yield* Latch.make(),
    doubt: yield* Queue.sliding<void>(1),
    renewal: yield* Queue.sliding<void>(1),
    lost: yield* Queue.unbounded<ClusterPort>(),
    stripes: yield* Effect.replicateEffect(Semaphore.make(1), stripeCount),
    taking: yield* Semaphore.make(1),
    returning: yield* Semaphore.make(1)
  }
})

/** Why this host can't claim. */
export interface Ungranted {
  readonly _tag: "Ungranted"
  readonly detail: string
}

export const ungranted = (detail: string): Ungranted => ({ _tag: "Ungranted", detail })

/** Whether the lease surely lives, and everything is known that hangs on it. */
export const mayGrant = (member: Member): Effect.Effect<boolean> =>
  Clock.clockWith((clock) => Effect.succeed(mayGrantBy(clock, member)))

/** The same, by clocks that the caller has at hand. */
export const mayGrantBy = (clock: Clock.Clock, { isProven, span }: Member): boolean =>
  isProven && span !== undefined && sureMillisBy(clock, span) > 0

/**
 * Succeeds with the session once the host may grant; the caller bounds it. Fails at once where the store has failed and
 * nothing has been heard of it since: callers come one by one, and each would wait in vain.
 */
export const untilGranting = (member: Member): Effect.Effect<Session, Ungranted> =>
  Effect.gen(function* () {
    while (true) {
      const { session, trouble, interruptedMillis } = member
      const may = yield* mayGrant(member)
      if (trouble !== undefined && (interruptedMillis !== undefined || !may))
        return yield* Effect.fail(ungranted(trouble))
      if (may && session !== undefined) return session
      yield* member.granting.close
      yield* Queue.offer(member.renewal, undefined)
      yield* member.granting.await
    }
  })

export const leaseMayHaveEnded = "this host's lease may have ended"

/** Why it may not grant, for people. */
export const whyNot = ({ trouble, session, isProven }: Member): string => {
  if (trouble !== undefined) return trouble
  if (session === undefined) return "this host has not joined it yet"
  return isProven ? leaseMayHaveEnded : "this host does not know yet which ports are still its own"
}

/** Notes how the store answers, for those who ask why nothing can be claimed. */
export const noting = <A, E extends { readonly message: string }>(
  member: Member,
  effect: Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.mapBoth(effect, {
    onFailure: (error) => {
      member.trouble = error.message
      return error
    },
    onSuccess: (value) => {
      member.trouble = undefined
      return value
    }
  })

/** Runs something while this host makes no claim. */
export const betweenClaims = <A, E>(member: Member, run: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  member.stripes.reduce((inner, stripe) => stripe.withPermit(inner), run)

/** What to claim in a cell as it is, or why not. */
export type Decide<E> = (state: CellState) => Effect.Effect<ReadonlyArray<Claim>, E>

/**
 * Claims in one cell what `decide` says, and tells `made` of it in the same step. Decides anew where others claimed in
 * the cell meanwhile. A refusal is decided on the cell as it is now.
 */
export const claimIn = <E>(
  member: Member,
  session: Session,
  cell: string,
  decide: Decide<E>,
  made: (claims: ReadonlyArray<HeldClaim>) => void
): Effect.Effect<void, E | ClusterError | LeaseLost> =>
  stripeOf(member, cell).withPermit(
    Effect.gen(function* () {
      const { store, replica } = member
      let state = replica.cell(cell)
      let isFresh = false
      while (true) {
        const decided = yield* Effect.result(decide(state))
        const own = decided._tag === "Success" ? strays(member, state, decided.success) : []
        if (!isFresh && (decided._tag === "Failure" || own.length > 0)) {
          state = yield* noting(member, store.readCell(cell))
          replica.put(state)
          isFresh = true
          continue
        }
        if (decided._tag === "Failure") return yield* Effect.fail(decided.failure)
        if (decided.success.length === 0) return
        if (own.length > 0) {
          // A claim of ours that the ledger doesn't have has another epoch than the one to come.
          member.ledger.owe(own)
          yield* giveBack(member)
          isFresh = false
          continue
        }
        const outcome = yield* claimNow(member, session, state, decided.success, made)
        replica.put(outcome.state)
        if (outcome._tag === "Claimed") return
        state = outcome.state
        isFresh = true
      }
    })
  )

const stripeOf = ({ stripes }: Member, cell: string) =>
  stripes[Number(cell) % stripeCount] as Semaphore.Semaphore

/** The claims of these names that this host already has. */
const strays = ({ options }: Member, state: CellState, claims: ReadonlyArray<Claim>) =>
  state.claims.filter((held) => held.host === options.host && claims.some(({ name }) => name === held.name))

const claimNow = (
  member: Member,
  session: Session,
  state: CellState,
  claims: ReadonlyArray<Claim>,
  made: (claims: ReadonlyArray<HeldClaim>) => void
) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.map(restore(noting(member, member.store.claim(session, state, claims))), (outcome) => {
      const isMade = (held: HeldClaim) =>
        held.host === session.host && claims.some(({ name }) => name === held.name)
      if (outcome._tag === "Claimed") made(outcome.state.claims.filter(isMade))
      return outcome
    })
  )

/** Gives back what this host owes, one call at a time. What fails stays owed. */
export const giveBack = (member: Member): Effect.Effect<void, ClusterError> =>
  Effect.suspend(() => {
    const { ledger, store } = member
    if (ledger.returning.length === 0) return Effect.void
    return member.returning.withPermit(
      Effect.suspend(() => {
        const owed = ledger.returning
        return Effect.map(noting(member, store.release(owed)), () => ledger.returned(owed))
      })
    )
  })

/** The claim that keeps this host from the port, as far as is known here. */
export const excluderHere = ({ replica, options }: Member, wanted: Claimed): HeldClaim | undefined =>
  excluderOf(replica.cell(cellOf(wanted.port)), options.host, wanted)

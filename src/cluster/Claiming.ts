/** Claims and gives them back. What became of a claim whose reply was lost is `Doubts`'. */
import { type Duration, Effect, Exit } from "effect"
import { type ClusterKeys, cellState, claimText } from "./ClusterKeys.ts"
import type { Claim, ClaimOutcome, HeldName, SeenCell, Session } from "./ClusterState.ts"
import { type Doubt, made, makeDoubts } from "./Doubts.ts"
import {
  ClusterError,
  type Etcd,
  type LeaseLost,
  mostOperations,
  type Operation,
  type Transaction
} from "./Etcd.ts"
import { readKeys, transactOnNoLease } from "./readKeys.ts"
import { noAnswer } from "./retryEtcd.ts"

/** Beside the claims a transaction moves the cell, and reads it. */
const mostClaims = mostOperations - 2

/** Each is a transaction of its own within one request. */
const releasesAtOnce = mostOperations / 2

export const makeClaiming = Effect.fnUntraced(function* (
  etcd: Etcd["Service"],
  keys: ClusterKeys,
  patience: Duration.Duration
) {
  const release = Effect.fn("ClusterStore.release")(function* (claims: ReadonlyArray<HeldName>) {
    for (let start = 0; start < claims.length; start += releasesAtOnce) {
      const success = claims.slice(start, start + releasesAtOnce).map((claim) => releaseOne(keys, claim))
      yield* transactOnNoLease(etcd, { compare: [], success })
    }
  })

  const doubts = yield* makeDoubts(etcd, keys, release)

  const claim = Effect.fn("ClusterStore.claim")(
    function* (
      session: Session,
      seen: SeenCell,
      claims: ReadonlyArray<Claim>
    ): Effect.fn.Return<ClaimOutcome, ClusterError | LeaseLost> {
      if (claims.length === 0 || claims.length > mostClaims)
        return yield* refused(`1 to ${mostClaims} claims are made at once, not ${claims.length}`)
      yield* doubts.settleCell(seen.cell)
      const doubt: Doubt = { cell: seen.cell, revision: seen.revision, host: session.host, claims }
      const { revision, reads } = yield* Effect.onExit(
        etcd.transact(claimAll(keys, session, seen, claims)),
        (exit) => (isCertain(exit) ? Effect.void : doubts.add(doubt))
      )
      const state = cellState(keys, seen.cell, revision, reads[0] ?? [])
      return { _tag: made(doubt, state).length > 0 ? "Claimed" : "Moved", state }
    },
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => Effect.fail(doubts.trouble() ?? noAnswer(patience))
    })
  )

  const readCell = Effect.fn("ClusterStore.readCell")(function* (cell: string) {
    const { revision, entries } = yield* readKeys(etcd, keys.cell(cell))
    return cellState(keys, cell, revision, entries)
  })

  const update = Effect.fn("ClusterStore.update")(function* (
    { host, lease }: Session,
    { cell, name, revision }: HeldName,
    value: string
  ) {
    const key = keys.claim(cell, name)
    const { succeeded } = yield* etcd.transact({
      compare: [
        { _tag: "CreateRevision", key, is: revision },
        // A request that arrives late would take it back from the lease of a successor.
        { _tag: "Lease", key, is: lease }
      ],
      success: [{ _tag: "Put", key, value: claimText(host, value), lease }]
    })
    return succeeded
  })

  return { claim, isDoubtful: doubts.isOf, release, update, readCell }
})

const claimAll = (
  keys: ClusterKeys,
  { host, lease }: Session,
  { cell, revision }: SeenCell,
  claims: ReadonlyArray<Claim>
): Transaction => {
  const key = keys.cell(cell)
  const read: Operation = { _tag: "Read", prefix: key }
  return {
    compare: [
      { _tag: "Revision", key, is: revision },
      ...claims.map(({ name }) => ({ _tag: "CreateRevision", key: keys.claim(cell, name), is: 0 }) as const)
    ],
    success: [
      { _tag: "Put", key, value: "" },
      ...claims.map(
        ({ name, value }): Operation => ({
          _tag: "Put",
          key: keys.claim(cell, name),
          value: claimText(host, value),
          lease
        })
      ),
      read
    ],
    failure: [read]
  }
}

const releaseOne = (keys: ClusterKeys, { cell, name, revision }: HeldName): Operation => {
  const key = keys.claim(cell, name)
  const compare = [{ _tag: "CreateRevision", key, is: revision }] as const
  return { _tag: "Transaction", transaction: { compare, success: [{ _tag: "Delete", key }] } }
}

const refused = (detail: string) =>
  new ClusterError({ reason: "Refused", endpoint: undefined, detail, mayBeDone: false })

/** All of it was done, or nothing of it was, nor will be. */
const isCertain = (exit: Exit.Exit<unknown, ClusterError | LeaseLost>): boolean => {
  if (Exit.isSuccess(exit)) return true
  const [reason, ...others] = exit.cause.reasons
  if (reason?._tag !== "Fail" || others.length > 0) return false
  return reason.error._tag === "LeaseLost" || !reason.error.mayBeDone
}

/**
 * Claims of which nobody knows whether they were made, since the reply was lost. A doubt is settled by reading back whether
 * the first of its keys is there, on its lease and created since. If not, the same transaction moves the cell, so that a
 * request which is still on its way finds the cell changed and does nothing.
 */
import { Effect, Latch, Random, Semaphore } from "effect"
import { type ClusterKeys, cellState } from "./ClusterKeys.ts"
import type { CellState, Claim, ClaimName, HeldClaim } from "./ClusterState.ts"
import type { ClusterError, Etcd, LeaseId, Operation, Transaction } from "./Etcd.ts"

export interface Doubt {
  readonly cell: string
  /** The cell's, that the claims were made on. */
  readonly revision: number
  readonly lease: LeaseId
  readonly claims: ReadonlyArray<Claim>
}

/** The claims that it made; none where it made none. */
export const made = (doubt: Doubt, { claims }: CellState): ReadonlyArray<HeldClaim> => {
  const values = new Map(doubt.claims.map(({ name, value }) => [name, value]))
  return claims.filter(
    ({ name, value, lease, revision }) =>
      value === values.get(name) && lease === doubt.lease && revision > doubt.revision
  )
}

/** Remembers doubts, and gives back what they turn out to hold, as soon as etcd can be reached. */
export const makeDoubts = Effect.fnUntraced(function* (
  etcd: Etcd["Service"],
  keys: ClusterKeys,
  release: (
    claims: ReadonlyArray<ClaimName & Pick<HeldClaim, "revision">>
  ) => Effect.Effect<void, ClusterError>
) {
  const doubts = new Set<Doubt>()
  let trouble: ClusterError | undefined
  const isDoubtful = yield* Latch.make()
  const settling = yield* Semaphore.make(1)

  const settle = Effect.fnUntraced(
    function* (doubt: Doubt) {
      const { revision, reads } = yield* etcd.transact(readOrMove(keys, doubt))
      yield* release(made(doubt, cellState(keys, doubt.cell, revision, reads[0] ?? [])))
      doubts.delete(doubt)
      trouble = undefined
    },
    Effect.tapError((error) =>
      Effect.sync(() => {
        if (error._tag === "ClusterError") trouble = error
      })
    )
  )

  const settleThose = (isMeant: (doubt: Doubt) => boolean) =>
    settling.withPermit(
      Effect.suspend(() => Effect.forEach([...doubts].filter(isMeant), settle, { discard: true }))
    )

  const settleInTime = Effect.gen(function* () {
    yield* isDoubtful.await
    yield* Effect.sleep(yield* Random.nextBetween(500, 1500))
    yield* Effect.ignore(settleThose(() => true))
    if (doubts.size === 0) yield* isDoubtful.close
  })
  yield* Effect.forkScoped(Effect.forever(settleInTime))

  return {
    add: (doubt: Doubt) =>
      Effect.sync(() => {
        doubts.add(doubt)
        isDoubtful.openUnsafe()
      }),
    /** Why the last attempt to settle one failed. */
    trouble: () => trouble,
    /** Before anything else is claimed in the cell. */
    settleCell: (cell: string) =>
      [...doubts].some((doubt) => doubt.cell === cell)
        ? settleThose((doubt) => doubt.cell === cell)
        : Effect.void
  }
})

/** Reads the cell. Moves it, unless the claims are there. */
const readOrMove = (keys: ClusterKeys, { cell, revision, lease, claims }: Doubt): Transaction => {
  const key = keys.cell(cell)
  const first = keys.claim(cell, claims[0]?.name ?? "")
  const read: Operation = { _tag: "Read", prefix: key }
  return {
    compare: [
      { _tag: "Lease", key: first, is: lease },
      { _tag: "CreatedAfter", key: first, revision }
    ],
    success: [read],
    failure: [{ _tag: "Put", key, value: "" }, read]
  }
}

/**
 * Claims of which it is unknown whether they were made, since the reply was lost. A doubt is settled by reading back whether
 * the first of its keys has been created since. If not, the same transaction moves the cell, so that a request which is still
 * on its way finds the cell changed and does nothing.
 */
import { Effect, Latch, Random, Semaphore } from "effect"
import { type ClusterKeys, cellState } from "./ClusterKeys.ts"
import type { CellState, Claim, HeldClaim, HeldName } from "./ClusterState.ts"
import type { ClusterError, Etcd, Operation, Transaction } from "./Etcd.ts"
import { transactOnNoLease } from "./readKeys.ts"

export interface Doubt {
  readonly cell: string
  /** The cell's, that the claims were made on. */
  readonly revision: number
  readonly host: string
  readonly claims: ReadonlyArray<Claim>
}

/** The claims that it made, on whatever lease of the host they are by now; none where it made none. */
export const made = (doubt: Doubt, { claims }: Pick<CellState, "claims">): ReadonlyArray<HeldClaim> => {
  const values = new Map(doubt.claims.map(({ name, value }) => [name, value]))
  return claims.filter(
    ({ name, value, host, revision }) =>
      value === values.get(name) && host === doubt.host && revision > doubt.revision
  )
}

/** Remembers doubts, and gives back the claims that turn out to have been made, as soon as etcd can be reached. */
export const makeDoubts = Effect.fnUntraced(function* (
  etcd: Etcd["Service"],
  keys: ClusterKeys,
  release: (claims: ReadonlyArray<HeldName>) => Effect.Effect<void, ClusterError>
) {
  const doubts = new Set<Doubt>()
  let trouble: ClusterError | undefined
  const isDoubtful = yield* Latch.make()
  const settling = yield* Semaphore.make(1)

  const settle = Effect.fnUntraced(
    function* (doubt: Doubt) {
      const { revision, reads } = yield* transactOnNoLease(etcd, readOrMove(keys, doubt))
      yield* release(made(doubt, cellState(keys, doubt.cell, revision, reads[0] ?? [])))
      doubts.delete(doubt)
      trouble = undefined
    },
    Effect.tapError((error) =>
      Effect.sync(() => {
        trouble = error
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
    /** Whether one of them is about this claim. */
    isOf: (held: HeldClaim): boolean =>
      [...doubts].some((doubt) => doubt.cell === held.cell && made(doubt, { claims: [held] }).length > 0),
    /** Why the last attempt to settle one failed. */
    trouble: () => trouble,
    /** Before anything else is claimed in the cell. */
    settleCell: (cell: string) =>
      [...doubts].some((doubt) => doubt.cell === cell)
        ? settleThose((doubt) => doubt.cell === cell)
        : Effect.void
  }
})

/** Reads the cell. Moves it, unless the first of the claims is there, or another host's, which has moved the cell. */
const readOrMove = (keys: ClusterKeys, { cell, revision, claims }: Doubt): Transaction => {
  const key = keys.cell(cell)
  const read: Operation = { _tag: "Read", prefix: key }
  return {
    compare: [{ _tag: "CreatedAfter", key: keys.claim(cell, claims[0]?.name ?? ""), revision }],
    success: [read],
    failure: [{ _tag: "Put", key, value: "" }, read]
  }
}

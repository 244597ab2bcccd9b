/**
 * Claims of which nobody knows whether they were made, since the reply was lost. A doubt is settled by reading back whether
 * the first of its keys is there, on its lease and created since. If not, the same transaction moves the cell, so that a
 * request which is still on its way finds the cell changed and does nothing.
 */
import { Effect, Latch, Random, Semaphore } from "effect"
import { type ClusterKeys, cellState } from "./ClusterKeys.ts"
import type { Claim, ClaimName, HeldClaim } from "./ClusterState.ts"
import type { ClusterError, Etcd, LeaseId, Operation } from "./Etcd.ts"

export interface Doubt {
  readonly cell: string
  /** The cell's revision that the claims were made on. */
  readonly seen: number
  readonly lease: LeaseId
  readonly claims: ReadonlyArray<Claim>
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
  const isDoubtful = yield* Latch.make()
  const settling = yield* Semaphore.make(1)

  /** `succeeded`: the claims are held. Else they are not, and never will be. Its read is that of the cell. */
  const settle = ({ cell, seen, lease, claims }: Doubt) => {
    const key = keys.cell(cell)
    const first = keys.claim(cell, claims[0]?.name ?? "")
    const read: Operation = { _tag: "Read", prefix: key }
    return etcd.transact({
      compare: [
        { _tag: "Lease", key: first, is: lease },
        { _tag: "CreatedAfter", key: first, revision: seen }
      ],
      success: [read],
      failure: [{ _tag: "Put", key, value: "" }, read]
    })
  }

  const giveBack = Effect.fnUntraced(function* (doubt: Doubt) {
    const { succeeded, revision, reads } = yield* settle(doubt)
    if (succeeded) {
      const names = new Set(doubt.claims.map(({ name }) => name))
      const { claims } = cellState(keys, doubt.cell, revision, reads[0] ?? [])
      yield* release(claims.filter(({ name, lease }) => names.has(name) && lease === doubt.lease))
    }
    doubts.delete(doubt)
  })

  const settleThose = (isMeant: (doubt: Doubt) => boolean) =>
    settling.withPermit(
      Effect.suspend(() => Effect.forEach([...doubts].filter(isMeant), giveBack, { discard: true }))
    )

  const settleInTime = Effect.gen(function* () {
    yield* isDoubtful.await
    yield* Effect.sleep(yield* Random.nextBetween(500, 1500))
    yield* Effect.ignore(settleThose(() => true))
    if (doubts.size === 0) yield* isDoubtful.close
  })
  yield* Effect.forkScoped(Effect.forever(settleInTime))

  return {
    settle,
    add: (doubt: Doubt) =>
      Effect.sync(() => {
        doubts.add(doubt)
        isDoubtful.openUnsafe()
      }),
    /** Before anything else is claimed in the cell. */
    settleCell: (cell: string) =>
      [...doubts].some((doubt) => doubt.cell === cell)
        ? settleThose((doubt) => doubt.cell === cell)
        : Effect.void
  }
})

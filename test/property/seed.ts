/** The seed of this run: a fresh one, or `PORTMAPPER_SEED` to repeat a run. */
import * as Crypto from "node:crypto"
import { Effect } from "effect"

const named = process.env["PORTMAPPER_SEED"]

export const seed = named === undefined || named === "" ? Crypto.randomInt(2 ** 31) : Number(named)

/** How many runs a seed stands for; where time is short, only the first of them are run. */
export const runs = named === undefined ? 25 : 100

/** The same in the lab, where each run takes seconds. */
export const labRuns = named === undefined ? 5 : 50

/** How long each search goes on, in milliseconds; a given seed is searched once. */
export const searchMillis = Number(process.env["PORTMAPPER_SEARCH_MILLIS"] ?? 400)

export interface Searched<A> {
  readonly found: A | undefined
  readonly batches: number
}

/** Searches batch by batch from the seed on, until it finds a fault or the time is over. */
export const search = <A>(batch: (seed: number) => A | undefined): Searched<A> => {
  const end = performance.now() + searchMillis
  for (let batches = 1; ; batches++) {
    const found = batch(seed + batches - 1)
    if (found !== undefined || performance.now() >= end || named !== undefined) return { found, batches }
  }
}

/** The same for asynchronous batches. */
export const searchEffect = Effect.fnUntraced(function* <A, E, R>(
  batch: (seed: number) => Effect.Effect<A | undefined, E, R>
): Effect.fn.Return<Searched<A>, E, R> {
  const end = performance.now() + searchMillis
  for (let batches = 1; ; batches++) {
    const found = yield* batch(seed + batches - 1)
    if (found !== undefined || performance.now() >= end || named !== undefined) return { found, batches }
  }
})

/** The seed of this run: a fresh one, or the one that `PORTMAPPER_SEED` names, to see the same again. */
import * as Crypto from "node:crypto"

const named = process.env["PORTMAPPER_SEED"]

export const seed = named === undefined || named === "" ? Crypto.randomInt(2 ** 31) : Number(named)

/** How long each search goes on, in milliseconds; a named seed is searched once. */
export const searchMillis = Number(process.env["PORTMAPPER_SEARCH_MILLIS"] ?? 400)

/** Searches batch by batch from the seed on, until something is found or the time is over. */
export const search = <A>(
  batch: (seed: number) => A | undefined
): { readonly found: A | undefined; readonly batches: number } => {
  const end = performance.now() + searchMillis
  for (let batches = 1; ; batches++) {
    const found = batch(seed + batches - 1)
    if (found !== undefined || performance.now() >= end || named !== undefined) return { found, batches }
  }
}

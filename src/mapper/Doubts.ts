/**
 * What a failure leaves uncertain: the change may have been made all the same, or what should undo it failed. A firewall
 * and a store that are wrapped here note it, and `Reconcile` puts right what is in doubt.
 */
import { Cause, Effect } from "effect"
import type { Firewall } from "../firewall/Firewall.ts"
import type { MappingStore } from "./MappingStore.ts"

/** Whether the kernel's table, or the record, may differ from what is mapped. */
export interface Doubts {
  table: boolean
  record: boolean
}

export const doubtingTable = (firewall: Firewall["Service"], doubts: Doubts): Firewall["Service"] => {
  const noted = noting(doubts, "table")
  return {
    ...firewall,
    apply: (change) => Effect.catchCause(firewall.apply(change), noted),
    // By all that is mapped: it leaves no doubt.
    replace: (rules) =>
      Effect.map(Effect.catchCause(firewall.replace(rules), noted), () => {
        doubts.table = false
      })
  }
}

export const doubtingRecord = (store: MappingStore["Service"], doubts: Doubts): MappingStore["Service"] => {
  const noted = noting(doubts, "record")
  return {
    ...store,
    put: (mappings, state) => Effect.catchCause(store.put(mappings, state), noted),
    remove: (mappings) => Effect.catchCause(store.remove(mappings), noted),
    putEngine: (engine) => Effect.catchCause(store.putEngine(engine), noted)
  }
}

/** Fails as before. */
const noting =
  (doubts: Doubts, what: keyof Doubts) =>
  <E>(cause: Cause.Cause<E>): Effect.Effect<never, E> => {
    if (Cause.hasFails(cause)) doubts[what] = true
    return Effect.failCause(cause)
  }

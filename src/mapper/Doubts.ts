/**
 * What a failure leaves uncertain: the change may have been made all the same, or what should undo it failed. A firewall
 * and a store that are wrapped here note it, and `Reconcile` puts right what is in doubt.
 */
import { Effect } from "effect"
import type { Firewall } from "../firewall/Firewall.ts"
import type { MappingStore } from "./MappingStore.ts"

/** Whether the kernel's table, or the record, may differ from what is mapped. */
export interface Doubts {
  table: boolean
  record: boolean
}

export const doubtingTable = (firewall: Firewall["Service"], doubts: Doubts): Firewall["Service"] => ({
  ...firewall,
  apply: (change) => noting(doubts, "table", firewall.apply(change)),
  // By all that is mapped: it leaves no doubt.
  replace: (rules) =>
    Effect.map(noting(doubts, "table", firewall.replace(rules)), () => {
      doubts.table = false
    })
})

export const doubtingRecord = (store: MappingStore["Service"], doubts: Doubts): MappingStore["Service"] => ({
  ...store,
  put: (mappings, state) => noting(doubts, "record", store.put(mappings, state)),
  remove: (mappings) => noting(doubts, "record", store.remove(mappings)),
  putEngine: (engine) => noting(doubts, "record", store.putEngine(engine))
})

const noting = <A, E>(doubts: Doubts, what: keyof Doubts, effect: Effect.Effect<A, E>) =>
  Effect.tapError(effect, () =>
    Effect.sync(() => {
      doubts[what] = true
    })
  )

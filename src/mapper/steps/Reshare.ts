/** Gives backends of services other slots: in the relay and the record, once the kernel has them. */
import { Effect } from "effect"
import type { Rule } from "../../firewall/Firewall.ts"
import { eachRoute, logFailure, type MapperContext } from "../MapperContext.ts"
import { recordEntries } from "../MappingStore.ts"
import type { MappingEntry } from "../model/Mapping.ts"
import { type Reshare, resourcesWith } from "../plan/Services.ts"

/** The rules of members with their new slots. */
export const rulesOfShares = (shares: ReadonlyArray<Reshare>): ReadonlyArray<Rule> =>
  shares.flatMap(({ entry, share }) => resourcesWith(entry.resources, share).rules)

/** The rules of all members of these services. */
export const rulesOf = (services: ReadonlyArray<ReadonlyArray<MappingEntry>>): ReadonlyArray<Rule> =>
  services.flat().flatMap(({ resources }) => resources.rules)

/** Relays and records new slots that the kernel has already. A relay that refuses them is retried. */
export const reshare = (context: MapperContext, shares: ReadonlyArray<Reshare>): Effect.Effect<void> =>
  // Most calls are of no service.
  shares.length === 0 ? Effect.void : reshareAll(context, shares)

const reshareAll = Effect.fnUntraced(function* (context: MapperContext, shares: ReadonlyArray<Reshare>) {
  yield* eachRoute(shares, (each) => {
    const { route: before } = each.entry.resources
    takeShare(each)
    const { entry } = each
    const { route } = entry.resources
    return route === undefined
      ? Effect.void
      : Effect.catch(context.relay.open(route), () => {
          entry.resources = { ...entry.resources, route: before, relayPending: true }
          return Effect.void
        })
  })
  yield* recordShares(context, shares)
})

export const takeShare = ({ entry, share }: Reshare): void => {
  entry.mapping = { ...entry.mapping, share }
  entry.resources = resourcesWith(entry.resources, share)
}

/** A failure is logged: a restore spreads the slots anew where the record has gaps. */
export const recordShares = ({ store }: MapperContext, shares: ReadonlyArray<Reshare>) =>
  logFailure(
    "recording the slots of a service",
    recordEntries(
      store,
      shares.map(({ entry }) => entry)
    )
  )

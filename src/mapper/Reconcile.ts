/**
 * Keeps the kernel's table as it was put: firewall reloads and `nft flush ruleset` take it away under our feet. Connections
 * that were redirected go on meanwhile; new ones are led again as soon as it is noticed.
 */
import { Duration, Effect } from "effect"
import { flowsOfAdded } from "../firewall/Conntrack.ts"
import type { FirewallError } from "../firewall/Firewall.ts"
import type { Host } from "./Host.ts"

/**
 * How often the table is looked at; a look is one netlink request. Without the table a backend's packets reach the client
 * under the backend's own address, and the client resets the connection: a backend that misses an acknowledgement sends
 * again after 200 ms at the earliest, so the table has to be back before.
 */
export const checkInterval = Duration.millis(100)

/** Looks once, and puts back what is gone, told once for each time. */
export const reconcile = (on: Host): Effect.Effect<void> =>
  on.mappings.lock.withPermits(1)(
    Effect.catch(on.firewall.check, (error) => (error.reason === "Gone" ? repairLoudly(on) : Effect.void))
  )

const repairLoudly = (on: Host): Effect.Effect<void> =>
  Effect.matchEffect(repair(on), {
    onFailure: (error) => Effect.logError(`someone removed the table, and ${error.message}`),
    onSuccess: () =>
      Effect.logWarning(`someone removed the table; put back with ${on.mappings.size()} mappings`)
  })

/** One atomic replacement by what is mapped; flows that went past it meanwhile are forgotten. The caller has the lock. */
export const repair = Effect.fnUntraced(function* ({
  mappings,
  firewall,
  conntrack
}: Host): Effect.fn.Return<void, FirewallError> {
  const rules = [...mappings.all()].flatMap((live) => live.rules)
  yield* firewall.replace(rules)
  const flows = flowsOfAdded(rules)
  if (flows.length > 0)
    yield* Effect.catch(conntrack.flush(flows), (error) => Effect.logWarning(error.message))
})

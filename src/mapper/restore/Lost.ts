/**
 * Withdraws what another host of the cluster has got: while this one was away for longer than its lease, its ports were
 * free for others. Such a mapping is in conflict, and is served again once it can be.
 */
import { Effect } from "effect"
import { flowsOfRemoved, forgetFlows } from "../../firewall/Conntrack.ts"
import { PortAllocated } from "../../ports/PortAllocator.ts"
import { frontendText } from "../../protocol/PortBinding.ts"
import { eachRoute, logFailure, type MapperContext } from "../MapperContext.ts"
import { isConflicted, type MappingEntry, mappingText } from "../model/Mapping.ts"
import { changing, entriesAt } from "../steps/PortScope.ts"
import { setAside } from "./Restore.ts"

/** Waits for ports that are lost, and withdraws them. */
export const withdrawLost = (context: MapperContext): Effect.Effect<void> =>
  Effect.flatMap(context.claims.lost, (ports) =>
    changing(
      context,
      Effect.uninterruptible(
        Effect.suspend(() =>
          withdrawAll(
            context,
            entriesAt(context, ports).filter((entry) => !isConflicted(entry))
          )
        )
      )
    )
  )

const withdrawAll = Effect.fnUntraced(function* (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): Effect.fn.Return<void> {
  const { firewall, conntrack, byteCounter, relay, claims } = context
  const rules = entries.flatMap(({ resources }) => resources.rules)
  const routes = entries.flatMap(({ resources: { route } }) => route ?? [])
  // What the kernel refuses to give up, the reconciler removes: no entry has these rules any more.
  if (rules.length > 0)
    yield* logFailure("withdrawing redirections", firewall.apply({ add: [], remove: rules }))
  yield* setAside(context, entries)
  yield* forgetFlows(conntrack, flowsOfRemoved(rules))
  yield* byteCounter.forget(rules.filter((rule) => rule._tag === "Redirect"))
  yield* eachRoute(routes, (route) => relay.close(route))
  for (const entry of entries) {
    const { mapping } = entry
    const holder = claims.holderOf(mapping) ?? "held by another host of the cluster"
    entry.reason = new PortAllocated({ frontend: frontendText(mapping), hint: ` (${holder})` }).message
    yield* Effect.annotateLogs(
      Effect.logWarning(`withdrew ${mappingText(mapping)}, and keeps it as conflicted: ${holder}`),
      { event: "conflicted" }
    )
  }
})

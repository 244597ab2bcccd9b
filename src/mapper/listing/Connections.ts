/** How many connections mappings have had, and have now: what the kernel and the relay count. */
import { Effect } from "effect"
import type { ConntrackError } from "../../firewall/Conntrack.ts"
import type { FirewallError } from "../../firewall/Firewall.ts"
import type { Connections } from "../../protocol/Driver.ts"
import type { ReleasedBinding } from "../../protocol/PortBinding.ts"
import type { MapperContext } from "../MapperContext.ts"
import { releasedBy } from "../plan/Claims.ts"
import { carrierKey } from "./Listing.ts"

/** See `Driver.connectionsOf`. Those that began are counted from zero wherever a mapping is led anew. */
export const connectionsOf = Effect.fnUntraced(function* (
  { mappings, firewall, relay, conntrack }: MapperContext,
  bindings: ReadonlyArray<ReleasedBinding>
): Effect.fn.Return<Connections, FirewallError | ConntrackError> {
  const own = releasedBy(mappings, bindings).map(({ mapping }) => mapping)
  const keys = new Set(own.map(carrierKey))
  // What is open is read last: a connection that begins meanwhile is in either count, or in both.
  const redirected = (yield* firewall.read).counted.filter(({ rule }) => keys.has(carrierKey(rule)))
  const relayed = (yield* relay.counted).filter((count) => keys.has(carrierKey(count)))
  const backends = new Map(
    bindings.flatMap(({ protocol, backend: { address, port } }) =>
      address === undefined
        ? []
        : [[`${protocol} ${address.key} ${port}`, { protocol, backend: { address, port } }] as const]
    )
  )
  const flows = yield* conntrack.open([...backends.values()])
  return {
    begun: [...redirected, ...relayed].reduce((sum, { connections }) => sum + connections, 0),
    open: [...flows, ...relayed.map(({ open }) => open)].reduce((sum, open) => sum + open, 0)
  }
})

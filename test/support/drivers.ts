/** Small drivers for the tests of transports. */
import { Effect } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"

/** Grants every request, on port 40000 for an ephemeral one, and keeps nothing. */
export const echo = Driver.of({
  mapPorts: (group) => Effect.succeed(grant(group)),
  unmapPorts: () => Effect.void
})

export const grant = ({ entries, ports }: Group) => {
  const port = ports._tag === "Exact" ? ports.port : ports._tag === "Range" ? ports.first : 40000
  return entries.map((entry) => ({
    entry,
    port,
    discarded: undefined,
    allowForwarding: true,
    nat: { address: entry.host, port }
  }))
}

/** Grants every request without a redirection. */
export const granting = Driver.of({
  mapPorts: (group) => Effect.succeed(grant(group).map((binding) => ({ ...binding, nat: undefined }))),
  unmapPorts: () => Effect.void
})

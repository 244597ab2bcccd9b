/**
 * Checks mappings that a kill leaves and no answer named: the same request confirms one, and any other request
 * evicts it.
 */
import { Effect } from "effect"
import type { Plugin } from "../../test/lab/Plugin.ts"
import { otherBackend } from "./Clients.ts"
import { type Binding, bindingKey, type Listed, labelsOf, sharedPort, textOf } from "./Ledger.ts"
import { traffic } from "./Traffic.ts"
import type { World } from "./World.ts"

export const claim = Effect.fnUntraced(function* (
  { lab, ledger, tally, random }: World,
  plugin: Plugin,
  listed: ReadonlyArray<Listed>
) {
  const at = (text: string) => `${tally.kills}: ${text}`
  const unrecorded = listed
    .filter(({ State }) => State === "unconfirmed")
    .flatMap((one) => ledger.answered.get(bindingKey(one)) ?? [])
  tally.unrecorded += unrecorded.length
  for (const answered of unrecorded) {
    const again = yield* mapExactly(plugin, answered, answered)
    if (again !== "") tally.lost.push(at(`asked again for ${textOf(answered)}: ${again}`))
  }
  const unanswered = ledger.unanswered(listed)
  tally.unconfirmed += unanswered.length
  for (const one of unanswered) {
    // Half of them stay, so that ranges fill up with mappings that no client will ever unmap.
    if (one.State === "unconfirmed" && random.chance(0.5)) continue
    // Others join the shared port instead of evicting what is there.
    if (one.FrontendPort === sharedPort) {
      const { status, body } = yield* plugin.call("UnmapPorts", { PortBindings: [one], Labels: {} })
      if (status !== 200) tally.blocking.push(at(body))
      continue
    }
    const other = otherBackend(one)
    const refusal = yield* mapExactly(plugin, one, other)
    if (refusal !== "") {
      tally.blocking.push(at(`${textOf(one)} (${one.State}): ${refusal}`))
      continue
    }
    const claimed = { ...one, ...other }
    ledger.map([claimed])
    tally.lost.push(...(yield* traffic(lab, [claimed])).map(at))
    ledger.unmapBegins([claimed])
    const { status, body } = yield* plugin.call("UnmapPorts", { PortBindings: [claimed], Labels: {} })
    if (status === 200) ledger.unmapped([claimed])
    else tally.blocking.push(at(body))
  }
})

/** The error of a refusal; empty if the plugin granted the request. */
const mapExactly = (
  plugin: Plugin,
  { Proto, FrontendIP, FrontendPort }: Binding,
  { BackendIP, BackendPort }: Pick<Binding, "BackendIP" | "BackendPort">
) =>
  Effect.map(
    plugin.call("MapPorts", {
      Reqs: [{ Proto, FrontendIP, FrontendPort, FrontendPortEnd: FrontendPort, BackendIP, BackendPort }],
      Labels: labelsOf({ FrontendPort })
    }),
    ({ status, body }) => (status === 200 ? "" : body.trim())
  )

/**
 * Asks again for what was answered, but killed before the answer was recorded: the same request confirms it. Checks
 * mappings that a kill leaves and no answer named: any other request evicts one; on the shared port, where others
 * join, it is unmapped.
 */
import { join } from "node:path"
import { Effect } from "effect"
import type { Plugin } from "../../test/lab/Plugin.ts"
import { otherBackend } from "./Clients.ts"
import { type Binding, isBeside, type Listed, labelsOf, sharedPort, textOf } from "./Ledger.ts"
import { recorded } from "./Record.ts"
import { traffic } from "./Traffic.ts"
import type { World } from "./World.ts"

export const claim = Effect.fnUntraced(function* (
  { lab, ledger, tally, random }: World,
  plugin: Plugin,
  listed: ReadonlyArray<Listed>
) {
  const at = (text: string) => `${tally.kills}: ${text}`
  const applied = new Set(
    recorded(join(plugin.folder, "state")).flatMap(({ text, state }) => (state === "applied" ? [text] : []))
  )
  // The list does not tell which standbys are unconfirmed: one of those would take over as such, and be evicted.
  const unrecorded = [...ledger.answered.values(), ...ledger.standbys.values()].filter((one) =>
    applied.has(textOf(one))
  )
  tally.unrecorded += unrecorded.length
  for (const answered of unrecorded) {
    const again = yield* mapExactly(plugin, answered, answered)
    if (again !== "") tally.lost.push(at(`asked again for ${textOf(answered)}: ${again}`))
  }
  const unanswered = ledger.unanswered(listed)
  tally.unconfirmed += unanswered.length
  const shared = unanswered.filter(({ FrontendPort }) => FrontendPort === sharedPort)
  if (shared.length > 0) {
    const { status, body } = yield* plugin.call("UnmapPorts", { PortBindings: shared, Labels: {} })
    if (status !== 200) tally.blocking.push(at(body))
    const beside = [...ledger.answered.values()].filter((one) => isBeside(one, shared))
    tally.lost.push(...(yield* traffic(lab, beside)).map(at))
  }
  for (const one of unanswered) {
    if (one.FrontendPort === sharedPort) continue
    // Half of them stay, so that ranges fill up with mappings that no client will ever unmap.
    if (one.State === "unconfirmed" && random.chance(0.5)) continue
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

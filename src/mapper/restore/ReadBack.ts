/** Reads a lost record's mappings back from the kernel, as far as its redirections tell them. */
import { Clock, Effect, Result } from "effect"
import { IpNetwork } from "effect/net"
import type { Redirect, Rule } from "../../firewall/Firewall.ts"
import { logFailure, type MapperContext } from "../MapperContext.ts"
import type { LostRecord, Stored } from "../MappingStore.ts"
import type { Mapping } from "../model/Mapping.ts"

/**
 * The owner of mappings read back from the kernel, which does not know their owner. The next caller to request one
 * takes it over.
 */
const unknownOwner = "unknown"

/** Keeps the redirections of a lost record that the kernel still has: records and returns them. */
export const readBack = Effect.fnUntraced(function* (
  { store, firewall }: MapperContext,
  { why, path }: LostRecord
) {
  yield* Effect.logWarning(`${why}; it was set aside as ${path}, and what the kernel still redirects is kept`)
  const read = yield* Effect.result(firewall.read)
  if (Result.isFailure(read)) {
    yield* Effect.logWarning(`nothing could be read back: ${read.failure.message}`)
    return []
  }
  const nowMillis = yield* Clock.currentTimeMillis
  const found = read.success.rules.flatMap((rule): ReadonlyArray<Stored> => {
    const mapping = mappingOfRule(rule, nowMillis)
    return mapping === undefined ? [] : [{ mapping, state: "applied" }]
  })
  const unnamed = read.success.rules.filter(
    (rule) => rule._tag === "Redirect" && rule.share !== undefined
  ).length
  if (unnamed > 0)
    yield* Effect.logWarning(
      `${unnamed} backends of services could not be read back, since the kernel does not know the services' names: they are published again when they are asked for again`
    )
  if (found.length > 0) yield* logFailure("recording what was read back", store.put(found))
  return found
})

/**
 * A redirection is a mapping in `nat` mode, and its sources give the allow label (a rule that allows no source
 * can't come from a label, and is skipped; so is one of a service, whose name the kernel does not know). Rules of
 * other kinds don't name their backend, and a port that was only relayed may have no rule: neither can be read back.
 */
const mappingOfRule = (rule: Rule, nowMillis: number): Mapping | undefined =>
  rule._tag !== "Redirect" || rule.share !== undefined || rule.allow?.length === 0
    ? undefined
    : {
        protocol: rule.protocol,
        host: rule.host,
        requestedAddress: rule.host.text,
        port: rule.port,
        backend: rule.backend,
        mode: "nat",
        labels: labelsOf(rule),
        owner: unknownOwner,
        epoch: 0,
        sinceMillis: nowMillis,
        container: undefined
      }

const labelsOf = ({ allow, rate }: Redirect): Mapping["labels"] => {
  const labels = new Map<string, string>()
  if (allow !== undefined) labels.set("portmapper.allow", allow.map((one) => IpNetwork.format(one)).join(","))
  if (rate !== undefined) labels.set("portmapper.rate", `${rate}/s`)
  return labels
}

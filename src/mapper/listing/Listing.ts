/** What `ListPorts` lists of each mapping: what this process knows, and what the kernel and the relay have counted. */
import { Clock, Effect } from "effect"
import type { Bytes } from "../../firewall/ByteCounter.ts"
import { type Counted, type Rule, redirectsNothing } from "../../firewall/Firewall.ts"
import type { ListedMapping } from "../../protocol/Driver.ts"
import { noLimits, type RefusalReason, type Refused } from "../../protocol/Limits.ts"
import type { Endpoint, PublishedPort } from "../../protocol/PortBinding.ts"
import { protocolNumber } from "../../protocol/Protocol.ts"
import { serviceName } from "../../protocol/ServiceName.ts"
import type { RelayCount } from "../../relay/Relay.ts"
import { containerOf, type MapperContext } from "../MapperContext.ts"
import { idleLabel, idleStates } from "../model/Labels.ts"
import { frontendKey, isConflicted, isStale, type MappingEntry, memberKey } from "../model/Mapping.ts"

export const listPorts = Effect.fnUntraced(function* (context: MapperContext) {
  const { mappings, firewall, relay, byteCounter } = context
  const now = yield* Clock.currentTimeMillis
  // If another process removed the table there is nothing to count, and the reconciler is about to put it back.
  const { counted } = yield* Effect.catch(firewall.read, () => Effect.succeed({ counted: [] }))
  const redirected = new Map(counted.map((count) => [carrierKey(count.rule), count]))
  const relayed = new Map((yield* relay.counted).map((count) => [carrierKey(count), count]))
  const entries = [...mappings.all()]
  const rules = entries.flatMap(({ resources }) => resources.rules).filter((rule) => rule._tag === "Redirect")
  const sums = yield* byteCounter.read(rules)
  const carried = new Map(rules.map((rule, index) => [rule, sums[index]]))
  const open = yield* openOfDrained(context, entries)
  return entries.map((entry): ListedMapping => {
    const { mode, standby } = entry.mapping
    if (standby) return listedOf(context, entry, now)
    const key = carrierKey(entry.mapping)
    const kernel = redirected.get(key)
    const userland = relayed.get(key)
    const bytes = bytesOf(entry, carried, userland)
    return listedOf(context, entry, now, {
      connections: mode === "routed" ? undefined : (kernel?.connections ?? 0) + (userland?.connections ?? 0),
      bytesIn: bytes?.in,
      bytesOut: bytes?.out,
      refused: refusedOf(entry, kernel, userland),
      open: openOf(open.get(entry), userland)
    })
  })
})

/** The flows that lead to each drained backend; nothing where the kernel can't tell. */
const openOfDrained = (
  { conntrack }: MapperContext,
  entries: ReadonlyArray<MappingEntry>
): Effect.Effect<ReadonlyMap<MappingEntry, number>> => {
  const drained = entries.filter(({ mapping }) => mapping.drained)
  return conntrack.open(drained.map(({ mapping }) => mapping)).pipe(
    Effect.map((counts) => new Map(drained.map((entry, index) => [entry, counts[index] ?? 0]))),
    Effect.catch(({ message }) => Effect.as(Effect.logDebug(message), new Map<MappingEntry, number>()))
  )
}

/** Where the kernel counts the host's own connections, the relay's are among them. */
const openOf = (flows: number | undefined, userland: RelayCount | undefined): number | undefined =>
  flows === undefined ? undefined : Math.max(flows, userland?.open ?? 0)

/** The key of what carries a mapping's traffic: of a rule, a route, or the mapping itself. */
export const carrierKey = ({
  protocol,
  host,
  port,
  backend,
  share
}: PublishedPort & {
  readonly backend?: Endpoint | undefined
  readonly share?: unknown
}): string => {
  const frontend = frontendKey(protocol, host, port)
  return share === undefined || backend === undefined ? frontend : memberKey(frontend, backend)
}

/** What the entry's labels refused, for each that it has. */
const refusedOf = (
  { resources: { rules, route } }: MappingEntry,
  kernel: Counted | undefined,
  userland: RelayCount | undefined
): Partial<Refused> => {
  const sum = (reason: RefusalReason, dropped = 0) => ({
    [reason]: dropped + (userland?.refused[reason] ?? 0)
  })
  const { connections, rate, ratePerSource } = route?.limits ?? noLimits
  const isAllowing =
    route?.allow !== undefined || rules.some((rule) => rule._tag !== "Guard" && rule.allow !== undefined)
  const isRated =
    rate !== undefined || rules.some((rule) => rule._tag === "Redirect" && rule.rate !== undefined)
  if (!isAllowing && !isRated && connections === undefined && ratePerSource === undefined) return refusesNone
  return {
    ...(isAllowing ? sum("allow", kernel?.dropped) : {}),
    ...(connections === undefined ? {} : sum("connections")),
    ...(isRated ? sum("rate", kernel?.overRate) : {}),
    ...(ratePerSource === undefined ? {} : sum("rate-per-source"))
  }
}

const refusesNone: Partial<Refused> = {}

/** The sum of all bytes of its traffic: `undefined` where a part of the traffic is not counted. */
const bytesOf = (
  { resources: { rules, route } }: MappingEntry,
  carried: ReadonlyMap<Rule, Bytes | undefined>,
  userland: RelayCount | undefined
): Bytes | undefined => {
  const relayed = { in: userland?.bytesIn ?? 0, out: userland?.bytesOut ?? 0 }
  const redirect = rules.find(({ _tag }) => _tag === "Redirect")
  if (redirect === undefined) return route?.admits === "everything" ? relayed : undefined
  const kernel = carried.get(redirect)
  return kernel && { in: kernel.in + relayed.in, out: kernel.out + relayed.out }
}

/** Reads nothing from the kernel or the relay: the cost is a look at each mapping. */
export const listOwned = Effect.fnUntraced(function* (context: MapperContext, owner: string) {
  const now = yield* Clock.currentTimeMillis
  const owned: Array<ListedMapping> = []
  for (const entry of context.mappings.all())
    if (entry.mapping.owner === owner) owned.push(listedOf(context, entry, now))
  return owned
})

type Counts = Partial<Pick<ListedMapping, "connections" | "bytesIn" | "bytesOut" | "refused" | "open">>

/** Spreads nothing, since it runs for every mapping. */
const listedOf = (
  { mappings, backends }: MapperContext,
  entry: MappingEntry,
  nowMillis: number,
  { connections, bytesIn, bytesOut, refused, open }: Counts = {}
): ListedMapping => {
  const { mapping, resources } = entry
  const { protocol, host, port, backend, requestedAddress, mode, owner, sinceMillis, labels, share } = mapping
  return {
    protocol: protocolNumber[protocol],
    frontendIp: requestedAddress === "" ? host.text : requestedAddress,
    frontendPort: port,
    backendIp: backend.address.text,
    backendPort: backend.port,
    mode,
    owner,
    state: stateOf(entry, mappings, nowMillis),
    sinceMillis,
    labels,
    container: containerOf(mapping, backends),
    service: share && serviceName(share.service),
    slots: share && { has: isConflicted(entry) ? 0 : share.slots.length, of: share.size },
    reason: reasonOf(entry),
    carriers: {
      socket: resources.hold !== undefined,
      kernel: resources.rules.some((rule) => rule._tag === "Redirect" && !redirectsNothing(rule)),
      relay: resources.route?.admits
    },
    connections,
    bytesIn,
    bytesOut,
    refused,
    open
  }
}

const reasonOf = (entry: MappingEntry): string | undefined => {
  const { reason, resources } = entry
  if (isConflicted(entry) || reason === undefined) return reason
  return resources.relayPending ? `it is redirected, but not relayed: ${reason}` : undefined
}

/** A standby of an entry in conflict would not be served either. */
const stateOf = (
  entry: MappingEntry,
  { engine, get }: MapperContext["mappings"],
  nowMillis: number
): ListedMapping["state"] => {
  if (entry.mapping.standby) {
    const { protocol, host, port } = entry.mapping
    const before = get(frontendKey(protocol, host, port))
    return before !== undefined && isConflicted(before) ? "conflicted" : "standby"
  }
  if (entry.status._tag === "Conflicted") return "conflicted"
  if (entry.status._tag === "Unconfirmed") return "unconfirmed"
  if (isStale(entry, engine, nowMillis)) return "stale"
  const { drained, labels } = entry.mapping
  if (drained) return "drained"
  const idle = idleStates.find((state) => state === labels.get(idleLabel)) ?? "live"
  return idle === "failed" ? "asleep" : idle
}

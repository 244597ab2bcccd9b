/** What all hosts of the cluster have given out, for people and for service discovery. */
import { Clock, Effect, Result } from "effect"
import { parseAddress } from "../protocol/Address.ts"
import type { ListedMapping } from "../protocol/Driver.ts"
import { protocolNumber } from "../protocol/Protocol.ts"
import { serviceName } from "../protocol/ServiceName.ts"
import { claimOf, itemOf, portClaim, type Use, useOf } from "./Cells.ts"
import type { HeldClaim } from "./ClusterState.ts"
import type { OwnBlock, OwnPort } from "./Ledger.ts"
import { type Member, mayGrant, noting } from "./Member.ts"
import type { Replica } from "./Replica.ts"

/** One row for each port that a host has; `stale` while its host is away. */
export const listed = (replica: Replica): ReadonlyArray<ListedMapping> => {
  const hosts = new Map(replica.hosts().map((host) => [host.host, host]))
  return [...replica.claims()].flatMap((held) => {
    const host = hosts.get(held.host)
    const at = { host: held.host, address: host?.address }
    const state = host === undefined || host.isAbsent ? "stale" : "live"
    return usesIn(held).map((use) => rowOf(use, at, state))
  })
}

type Used = Use & { readonly service?: string }

const usesIn = (held: HeldClaim): ReadonlyArray<Used> => {
  const item = itemOf(held)
  if (item._tag === "Unreadable") return []
  return item._tag === "Port" ? [item] : (item.uses ?? [])
}

const rowOf = (
  { protocol, port, owner, backend, container, service, sinceMillis }: Used,
  at: NonNullable<ListedMapping["at"]>,
  state: ListedMapping["state"]
): ListedMapping => {
  const [, host = "", digits = "0"] = /^\[?(.*?)\]?:(\d+)$/.exec(backend) ?? []
  const address = Result.getOrUndefined(parseAddress(host))
  const backendPort = Number(digits)
  return {
    protocol: protocolNumber[protocol],
    frontendIp: at.address ?? "",
    frontendPort: port,
    backendIp: address?.text ?? "",
    // Another host wrote it, and a client refuses the whole list for what is no port.
    backendPort: backendPort > 65535 ? 0 : backendPort,
    mode: "",
    ...{ owner, state, sinceMillis, at },
    labels: new Map(),
    container,
    ...{ connections: undefined, bytesIn: undefined, bytesOut: undefined },
    service: service === undefined ? undefined : serviceName(service)
  }
}

/** Ephemeral ports, and containers, are published some time after, so that giving out a port waits for no request. */
const publishAfter = "1 second"

/** Never ends. */
export const publishUses = (member: Member): Effect.Effect<never> =>
  Effect.forever(
    Effect.gen(function* () {
      yield* Effect.sleep(publishAfter)
      const { ledger } = member
      const unpublished = [...ledger.ports(), ...ledger.blocks()].filter(({ isUnpublished }) => isUnpublished)
      if (unpublished.length === 0 || !(yield* mayGrant(member))) return
      const nowMillis = yield* Clock.currentTimeMillis
      for (const own of unpublished) {
        const { session, store } = member
        const { claim } = own
        if (session === undefined || claim === undefined) continue
        own.isUnpublished = false
        const { value } = claimOf(session.host, itemNow(member, own, nowMillis))
        yield* noting(member, store.update(session, claim, value)).pipe(
          Effect.catch(() =>
            Effect.sync(() => {
              own.isUnpublished = true
            })
          )
        )
      }
    })
  )

/** What a claim of ours is for, as it is now. */
const itemNow = ({ ledger, replica }: Member, own: OwnPort | OwnBlock, nowMillis: number) => {
  if (!("first" in own)) {
    const { cell = "", name } = own.claim ?? { name: "" }
    const before = replica.cell(cell).claims.find((held) => held.name === name)
    const item = before === undefined ? undefined : itemOf(before)
    return portClaim(own, own.claimant, item?._tag === "Port" ? item.sinceMillis : nowMillis)
  }
  const { _tag, first, last } = own
  const uses = ledger.reservedIn(own).map((each) => {
    each.sinceMillis ??= nowMillis
    return useOf(each, each.claimant, each.sinceMillis)
  })
  return { _tag, first, last, uses }
}

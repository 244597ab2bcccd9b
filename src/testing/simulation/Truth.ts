/**
 * What a cluster's etcd holds, read by the oracle with code of its own: nothing here is decided by what it judges.
 */
import { Schema } from "effect"
import type { MemoryEtcd } from "../../cluster/MemoryEtcd.ts"
import type { Protocol } from "../../protocol/Protocol.ts"

/** One port of a host, or a block of ports of all protocols. */
export interface TrueClaim {
  readonly host: string
  readonly protocol: Protocol | undefined
  readonly first: number
  readonly last: number
  readonly service: string | undefined
  /** Its epoch. */
  readonly revision: number
  readonly lease: string | undefined
}

export interface TruePort {
  readonly protocol: Protocol
  readonly port: number
  readonly service: string | undefined
}

export interface Truth {
  readonly revision: number
  readonly claims: ReadonlyArray<TrueClaim>
  /** Of each host that is there: its leases, and since which revision it has had them. */
  readonly hosts: ReadonlyMap<string, { readonly since: number; readonly leases: ReadonlyArray<string> }>
  /** Those that live. */
  readonly leases: ReadonlyMap<string, unknown>
}

const Value = Schema.fromJsonString(
  Schema.Struct({
    protocol: Schema.optionalKey(Schema.Literals(["tcp", "udp", "sctp"])),
    port: Schema.optionalKey(Schema.Number),
    first: Schema.optionalKey(Schema.Number),
    last: Schema.optionalKey(Schema.Number),
    service: Schema.optionalKey(Schema.String)
  })
)
const decode = Schema.decodeUnknownSync(Value)
const decodeHost = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Struct({ leases: Schema.Array(Schema.String) }))
)

/** Reads again only what has changed since `before`. */
export const truthOf = (etcd: MemoryEtcd["Service"], before: Truth | undefined): Truth => {
  const { keys, leases } = etcd.backup()
  if (before?.revision === keys.revision) return before
  const claims: Array<TrueClaim> = []
  const hosts = new Map<string, { readonly since: number; readonly leases: ReadonlyArray<string> }>()
  for (const { key, value, createRevision: revision, lease } of keys.read("/portmapper/default/")) {
    const [kind, name = "", rest] = key.slice("/portmapper/default/".length).split("/")
    if (kind === "hosts") hosts.set(name, { since: revision, leases: decodeHost(value).leases })
    else if (rest !== undefined && rest !== "") {
      const space = value.indexOf(" ")
      const { protocol, port = 0, first = port, last = port, service } = decode(value.slice(space + 1))
      claims.push({ host: value.slice(0, space), protocol, first, last, service, revision, lease })
    }
  }
  return { revision: keys.revision, claims, hosts, leases }
}

/** The claim that lets the host have this port. */
export const coverOf = ({ claims }: Truth, host: string, wanted: TruePort): TrueClaim | undefined =>
  claims.find((claim) => claim.host === host && covers(claim, wanted))

/** Whether a claim lets its host have this port. */
export const covers = (
  { protocol, first, last, service }: TrueClaim,
  { protocol: wanted, port, service: wantedService }: TruePort
): boolean =>
  first <= port &&
  port <= last &&
  (protocol === undefined ? wantedService === undefined : protocol === wanted && service === wantedService)

/** The claim that keeps the host from this port. */
export const excluderOf = ({ claims }: Truth, host: string, wanted: TruePort): TrueClaim | undefined => {
  const { protocol, port, service } = wanted
  const claim = {
    ...{ host, protocol, service },
    ...{ first: port, last: port, revision: 0, lease: undefined }
  }
  return claims.find((each) => each.first <= port && port <= each.last && excludes(each, claim))
}

/** Two claims that can't both be. */
export const overlapIn = ({ claims }: Truth): readonly [TrueClaim, TrueClaim] | undefined => {
  const taken = new Map<number, Array<TrueClaim>>()
  for (const claim of claims)
    for (let port = claim.first; port <= claim.last; port++) {
      const others = taken.get(port) ?? []
      const other = others.find((each) => excludes(each, claim))
      if (other !== undefined) return [other, claim]
      others.push(claim)
      taken.set(port, others)
    }
  return undefined
}

const excludes = (one: TrueClaim, other: TrueClaim): boolean => {
  const isSameProtocol =
    one.protocol === undefined || other.protocol === undefined || one.protocol === other.protocol
  const areFellows = one.service !== undefined && one.service === other.service
  return isSameProtocol && one.host !== other.host && !areFellows
}

export const claimText = ({ host, protocol, first, last, service, revision }: TrueClaim): string =>
  `${host}: ${protocol ?? "block"} ${first === last ? first : `${first}-${last}`}${
    service === undefined ? "" : ` of ${service}`
  } since revision ${revision}`

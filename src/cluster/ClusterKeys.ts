/** Which key holds what, and what its value says. Pure. */
import { Option, Schema } from "effect"
import type { CellState, ClusterChange, ClusterHost, HeldClaim } from "./ClusterState.ts"
import type { Entry, WatchChange } from "./Etcd.ts"

/** What a host's key holds. `leases`: all that its claims may hang on, the present one first. */
const HostRecord = Schema.Struct({
  identity: Schema.String,
  address: Schema.optionalKey(Schema.String),
  absent: Schema.optionalKey(Schema.Boolean),
  leases: Schema.Array(Schema.String)
})
export type HostRecord = typeof HostRecord.Type

const HostText = Schema.fromJsonString(HostRecord)
const decodeHost = Schema.decodeUnknownOption(HostText)
export const hostText: (record: HostRecord) => string = Schema.encodeSync(HostText)

/** `undefined`: what no portmapper wrote. */
export const hostRecord = (entry: Entry): HostRecord | undefined =>
  Option.getOrUndefined(decodeHost(entry.value))

export type ClusterKeys = ReturnType<typeof clusterKeys>

export const clusterKeys = (name: string) => {
  const all = `/portmapper/${name}/`
  const hosts = `${all}hosts/`
  const cells = `${all}cells/`
  return {
    all,
    host: (host: string) => `${hosts}${host}/`,
    /** Also the prefix of the cell's claims. */
    cell: (cell: string) => `${cells}${cell}/`,
    claim: (cell: string, name: string) => `${cells}${cell}/${name}`,
    parse: (key: string): Parsed => {
      if (key.startsWith(hosts) && key.endsWith("/"))
        return { _tag: "Host", host: key.slice(hosts.length, -1) }
      const end = key.indexOf("/", cells.length)
      if (!key.startsWith(cells) || end < 0) return { _tag: "Unknown" }
      const cell = key.slice(cells.length, end)
      return end === key.length - 1
        ? { _tag: "Cell", cell }
        : { _tag: "Claim", cell, name: key.slice(end + 1) }
    }
  } as const
}

type Parsed =
  | { readonly _tag: "Host"; readonly host: string }
  | { readonly _tag: "Cell"; readonly cell: string }
  | { readonly _tag: "Claim"; readonly cell: string; readonly name: string }
  | { readonly _tag: "Unknown" }

export const claimText = (host: string, value: string): string => `${host} ${value}`

const heldClaim = (cell: string, name: string, entry: Entry): HeldClaim => {
  const end = `${entry.value} `.indexOf(" ")
  return {
    cell,
    name,
    host: entry.value.slice(0, end),
    value: entry.value.slice(end + 1),
    lease: entry.lease ?? "",
    revision: entry.createRevision
  }
}

const clusterHost = (host: string, entry: Entry): ClusterHost => {
  const record = hostRecord(entry)
  return { host, address: record?.address, isAbsent: record?.absent === true, revision: entry.revision }
}

/** `entries`: all below the cell's key, and that one. */
export const cellState = (
  keys: ClusterKeys,
  cell: string,
  readAt: number,
  entries: ReadonlyArray<Entry>
): CellState => {
  let revision = 0
  const claims: Array<HeldClaim> = []
  for (const entry of entries) {
    const parsed = keys.parse(entry.key)
    if (parsed._tag === "Cell") revision = entry.revision
    else if (parsed._tag === "Claim") claims.push(heldClaim(cell, parsed.name, entry))
  }
  return { cell, revision, readAt, claims }
}

/** Everything below the cluster's prefix, sorted by key. */
export const clusterState = (keys: ClusterKeys, readAt: number, entries: ReadonlyArray<Entry>) => {
  const hosts: Array<ClusterHost> = []
  const byCell = Map.groupBy(entries, (entry) => {
    const parsed = keys.parse(entry.key)
    if (parsed._tag === "Host") hosts.push(clusterHost(parsed.host, entry))
    return "cell" in parsed ? parsed.cell : undefined
  })
  const cells: Array<CellState> = []
  for (const [cell, inCell] of byCell)
    if (cell !== undefined) cells.push(cellState(keys, cell, readAt, inCell))
  return { hosts, cells }
}

/** `undefined`: the key is none of ours. */
export const clusterChange = (keys: ClusterKeys, change: WatchChange): ClusterChange | undefined => {
  const isPut = change._tag === "Put"
  const parsed = keys.parse(isPut ? change.entry.key : change.key)
  const revision = isPut ? change.entry.revision : change.revision
  switch (parsed._tag) {
    case "Host":
      return isPut
        ? { _tag: "HostCame", host: clusterHost(parsed.host, change.entry), revision }
        : { _tag: "HostLeft", host: parsed.host, revision }
    case "Claim":
      return isPut
        ? { _tag: "Claimed", claim: heldClaim(parsed.cell, parsed.name, change.entry), revision }
        : { _tag: "Released", claim: { cell: parsed.cell, name: parsed.name }, revision }
    case "Cell":
      return { _tag: "CellMoved", cell: parsed.cell, revision: isPut ? revision : 0 }
    case "Unknown":
      return undefined
  }
}

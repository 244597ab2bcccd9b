/**
 * What the page shows, as `GET /api/state` returns it and `GET /api/events` keeps it up to date. Plain JSON: the types
 * hold for what is sent as it is, so that a browser needs the types alone. What is not known is `null`.
 */
import { Schema } from "effect"

const Count = Schema.NullOr(Schema.Int)
/** A number per second. */
const Rate = Schema.NullOr(Schema.Finite)
const Text = Schema.NullOr(Schema.String)
/** Milliseconds since the Unix epoch. */
const Time = Schema.Int

/** Sums since it was mapped, and how much of it was new in the last second. */
const traffic = {
  connections: Count,
  bytesIn: Count,
  bytesOut: Count,
  connectionsRate: Rate,
  bytesInRate: Rate,
  bytesOutRate: Rate
}

/** One mapping. The backends of a service are rows with the same frontend and `service`. */
export const PageRow = Schema.Struct({
  /** Identifies it in `PageCounts` and `gone`, as long as `epoch` stays the same. */
  id: Schema.Int,
  /** Identifies it for good, as in links: `tcp 0.0.0.0:8080 172.17.0.2:80`. */
  key: Schema.String,
  protocol: Schema.String,
  /** The frontend. Port 0: it has no host port (mode `routed`), or has not got one. */
  address: Schema.String,
  port: Schema.Int,
  service: Text,
  backend: Schema.Struct({
    /** Empty while it is unknown, as of a container that does not run. */
    address: Schema.String,
    port: Schema.Int,
    /** Its container, by name or else by id. */
    container: Text,
    /** How many of the service's slots lead to it. */
    slots: Schema.NullOr(Schema.Struct({ has: Schema.Int, of: Schema.Int }))
  }),
  mode: Schema.String,
  owner: Schema.String,
  /** As in `ListPorts`. */
  state: Schema.String,
  since: Time,
  ...traffic,
  /** Connections that are open to a drained backend; `null` for any other. */
  open: Count,
  /** What its labels kept out, for each label that can: `[{ label: "rate", count: 12 }]`. */
  refused: Schema.Array(Schema.Struct({ label: Schema.String, count: Schema.Int })),
  /** Its labels, the policy among them. */
  labels: Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.String })),
  /** How its traffic goes; `null` where that is not known. */
  carriers: Schema.NullOr(
    Schema.Struct({
      /** The plugin holds the host port by a socket. */
      socket: Schema.Boolean,
      /** The kernel's table redirects it. */
      kernel: Schema.Boolean,
      /** The relay carries what comes from the host's own loopback addresses, or everything. */
      relay: Schema.NullOr(Schema.Literals(["loopback", "everything"]))
    })
  ),
  /** What is wrong with it: `error` where it is not served, `warning` where it may not be, or not for long. */
  problem: Schema.NullOr(
    Schema.Struct({
      severity: Schema.Literals(["error", "warning"]),
      reason: Schema.String,
      remedy: Text
    })
  ),
  /** The command that unmaps it; `null` where there is none. */
  unmap: Text
})
export type PageRow = typeof PageRow.Type

/** The traffic of one row: id, connections, bytesIn, bytesOut, and the rates of these in the same order. */
export const PageCounts = Schema.Tuple([Schema.Int, Count, Count, Count, Rate, Rate, Rate])
export type PageCounts = typeof PageCounts.Type

const Limited = Schema.Struct({ used: Schema.Int, limit: Count })

/** The host as a whole. `connections`, `bytesIn` and `bytesOut` are the sums of what is mapped now. */
export const PageHost = Schema.Struct({
  mappings: Schema.Int,
  /** How many rows have a problem. */
  problems: Schema.Int,
  ...traffic,
  descriptors: Limited,
  /** Resident, in bytes; the limit is that of the control group, else the host's memory. */
  memory: Limited,
  relayThreads: Limited,
  /** What the relay refused for lack of descriptors since it started. */
  relayRefused: Schema.Struct({ tcp: Schema.Int, udp: Schema.Int })
})
export type PageHost = typeof PageHost.Type

/** A point of the host's sparklines: time, and the rates of connections, bytes in and bytes out. */
export const PageSample = Schema.Tuple([Time, Rate, Rate, Rate])
export type PageSample = typeof PageSample.Type

/**
 * What happened: `mapped`, `unmapped` (also evicted or withdrawn), `refused` (a call that failed), `restored` (at a
 * start), `tookOver` (from another process), `conflicted` and `served` (a mapping that can't be served any more, and
 * that is served again).
 */
export const PageEvent = Schema.Struct({
  /** Rises by one with each event, as long as `epoch` stays the same. */
  id: Schema.Int,
  at: Time,
  kind: Schema.Literals(["mapped", "unmapped", "refused", "restored", "tookOver", "conflicted", "served"]),
  text: Schema.String,
  /** The `key` of the row that it is about. */
  key: Text,
  owner: Text
})
export type PageEvent = typeof PageEvent.Type

/** What `portmapper doctor` found. Checked when a page opens and every five minutes, at most once a minute. */
export const PageChecks = Schema.Struct({
  at: Time,
  checks: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      status: Schema.Literals(["ok", "warn", "fail"]),
      found: Schema.String,
      remedy: Text
    })
  )
})
export type PageChecks = typeof PageChecks.Type

/** `GET /api/state`, and the event `state`. */
export const PageState = Schema.Struct({
  /** Which process, and which of its lives: another one knows nothing of `sequence` and `id`. */
  epoch: Schema.String,
  /** Rises with each change. */
  sequence: Schema.Int,
  at: Time,
  plugin: Schema.Struct({
    name: Schema.String,
    version: Schema.String,
    /** The name of this host. */
    host: Schema.String,
    startedAt: Time
  }),
  host: PageHost,
  /** The last two minutes, while a page was open, the oldest first; the last one is of `at`. */
  history: Schema.Array(PageSample),
  rows: Schema.Array(PageRow),
  /** The last 200, the oldest first. */
  events: Schema.Array(PageEvent),
  /** `null` before the first time. */
  checks: Schema.NullOr(PageChecks)
})
export type PageState = typeof PageState.Type

/**
 * The event `change`, once a second at most: what is to be done to the state before it, whose `sequence` is one less.
 * Its id is `EPOCH-SEQUENCE`, and so is that of `state`.
 */
export const PageChange = Schema.Struct({
  sequence: Schema.Int,
  at: Time,
  /** In place of the one before; its rates are the next point of the history. */
  host: PageHost,
  /** New rows, and those of which more has changed than the counts. */
  rows: Schema.Array(PageRow),
  /** The ids of rows that are no more. */
  gone: Schema.Array(Schema.Int),
  /** The other rows whose counts have changed. */
  counts: Schema.Array(PageCounts),
  /** New events. */
  events: Schema.Array(PageEvent),
  /** In place of the checks before; `null` where they have not changed. */
  checks: Schema.NullOr(PageChecks)
})
export type PageChange = typeof PageChange.Type

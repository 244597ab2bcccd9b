/** What a plugin might tell a page, in as few words as a test needs. */
import { fromState, type Model, type Row } from "../../adapters/page/app/model.ts"
import type { PageHost, PageRow, PageState } from "../../src/page/PageState.ts"

export const rowOf = (id: number, more: Partial<PageRow> = {}): PageRow => ({
  id,
  key: `tcp 0.0.0.0:${more.port ?? 8000 + id} 172.31.0.2:80`,
  protocol: "tcp",
  address: "0.0.0.0",
  port: 8000 + id,
  service: null,
  backend: { address: "172.31.0.2", port: 80, container: null, slots: null },
  mode: "nat",
  owner: "cli",
  state: "live",
  since: 1_700_000_000_000,
  connections: 0,
  bytesIn: null,
  bytesOut: null,
  connectionsRate: 0,
  bytesInRate: null,
  bytesOutRate: null,
  open: null,
  refused: [],
  labels: [],
  carriers: { socket: true, kernel: true, relay: "loopback" },
  problem: null,
  unmap: null,
  ...more
})

export const hostOf = (more: Partial<PageHost> = {}): PageHost => ({
  mappings: 0,
  problems: 0,
  connections: 0,
  bytesIn: null,
  bytesOut: null,
  connectionsRate: 0,
  bytesInRate: null,
  bytesOutRate: null,
  descriptors: { used: 20, limit: 1024 },
  memory: { used: 80_000_000, limit: null },
  relayThreads: { used: 1, limit: 2 },
  relayRefused: { tcp: 0, udp: 0 },
  ...more
})

export const stateOf = (rows: ReadonlyArray<PageRow>, more: Partial<PageState> = {}): PageState => ({
  epoch: "a",
  sequence: 1,
  at: 1000,
  plugin: { name: "portmapper", version: "0.1.0", host: "here", startedAt: 0 },
  host: hostOf(),
  history: [],
  rows,
  events: [],
  checks: null,
  ...more
})

export const modelOf = (...rows: ReadonlyArray<PageRow>): Model => fromState(stateOf(rows))

export const rowsOf = (...rows: ReadonlyArray<PageRow>): ReadonlyArray<Row> => [
  ...modelOf(...rows).rows.values()
]

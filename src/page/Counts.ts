/** The traffic of a row in the order of `PageCounts`. Imports types alone, so that a browser may load it. */
import type { PageCounts, PageRow } from "./PageState.ts"

export const countsOf = (row: PageRow): PageCounts => [
  row.id,
  row.connections,
  row.bytesIn,
  row.bytesOut,
  row.connectionsRate,
  row.bytesInRate,
  row.bytesOutRate
]

/** The state that the page has of the plugin, and what a change makes of it. Pure. */
import { countsOf } from "../../../src/page/Counts.ts"
import type {
  PageChange,
  PageCounts,
  PageEvent,
  PageRow,
  PageSample,
  PageState
} from "../../../src/page/PageState.ts"

/** A row with the text that a filter looks in. */
export interface Row extends PageRow {
  readonly searched: string
}

/** An event of any epoch. */
export interface SeenEvent extends PageEvent {
  readonly epoch: string
}

export interface Model extends Omit<PageState, "rows" | "events"> {
  readonly rows: ReadonlyMap<number, Row>
  readonly events: ReadonlyArray<SeenEvent>
  /** The counts that came in the last two minutes, the oldest first: what the sparkline of a row is made of. */
  readonly recent: ReadonlyArray<Recent>
}

interface Recent {
  readonly at: number
  readonly counts: ReadonlyArray<PageCounts>
}

/** Takes a whole state; of an earlier epoch of this page's plugin it keeps the history and the events. */
export const fromState = (state: PageState, before?: Model): Model => {
  const { rows, events, history, ...rest } = state
  const begins = history[0]?.[0] ?? state.at
  const isSame = before?.epoch === state.epoch
  return {
    ...rest,
    rows: new Map(rows.map((row) => [row.id, withSearched(row)])),
    history: lastMinutes([...(before?.history ?? []).filter(([at]) => at < begins), ...history], state.at),
    events: [
      ...(before?.events ?? []).filter(({ epoch }) => epoch !== state.epoch),
      ...events.map((event) => ({ ...event, epoch: state.epoch }))
    ].slice(-eventLimit),
    checks: state.checks ?? before?.checks ?? null,
    recent: isSame ? before.recent : []
  }
}

export const applyChange = (model: Model, change: PageChange): Model => {
  const { sequence, at, host } = change
  const rows = new Map(model.rows)
  for (const id of change.gone) rows.delete(id)
  for (const row of change.rows) rows.set(row.id, withSearched(row))
  for (const counts of change.counts) {
    const row = rows.get(counts[0])
    if (row !== undefined) rows.set(row.id, withCounts(row, counts))
  }
  const sample: PageSample = [at, host.connectionsRate, host.bytesInRate, host.bytesOutRate]
  const counts = [...change.rows.map(countsOf), ...change.counts]
  return {
    ...model,
    sequence,
    at,
    host,
    rows,
    history: lastMinutes([...model.history, sample], at),
    events: [...model.events, ...change.events.map((event) => ({ ...event, epoch: model.epoch }))].slice(
      -eventLimit
    ),
    checks: change.checks ?? model.checks,
    recent: bounded([...model.recent, { at, counts }], at)
  }
}

/** The same points of the history for one row. Between the changes that name it, its rates stayed as they were. */
export const historyOf = ({ history, recent }: Model, id: number): ReadonlyArray<PageSample> => {
  const named = new Map(
    recent.flatMap(({ at, counts }) => {
      const found = counts.find(([each]) => each === id)
      return found === undefined ? [] : [[at, found] as const]
    })
  )
  const begins = recent[0]?.at ?? Number.POSITIVE_INFINITY
  let rates: readonly [number | null, number | null, number | null] = [0, 0, 0]
  return history
    .filter(([at]) => at >= begins)
    .map(([at]) => {
      const counts = named.get(at)
      if (counts !== undefined) rates = [counts[4], counts[5], counts[6]]
      return [at, ...rates]
    })
}

/** `null` if nothing is known of either. */
export const sum = (a: number | null, b: number | null): number | null =>
  a === null && b === null ? null : (a ?? 0) + (b ?? 0)

export const frontendOf = ({ address, port, protocol }: PageRow): string =>
  port === 0 ? `-/${protocol}` : `${hostText(address)}:${port}/${protocol}`

/** `-` while it is unknown. */
export const backendOf = ({ backend: { address, port } }: PageRow): string =>
  address === "" ? "-" : `${hostText(address)}:${port}`

const hostText = (address: string): string => (address.includes(":") ? `[${address}]` : address)

const eventLimit = 200
const historyMillis = 120_000
/** Against a host whose every row changes each second. */
const countsLimit = 50_000

const lastMinutes = (history: ReadonlyArray<PageSample>, at: number): ReadonlyArray<PageSample> =>
  history.filter(([each]) => each >= at - historyMillis)

const bounded = (recent: ReadonlyArray<Recent>, at: number): ReadonlyArray<Recent> => {
  let room = countsLimit
  const first = recent.findLastIndex((each) => {
    room -= each.counts.length
    return room < 0 || each.at < at - historyMillis
  })
  return recent.slice(first + 1)
}

const withCounts = (row: Row, counts: PageCounts): Row => {
  const [, connections, bytesIn, bytesOut, connectionsRate, bytesInRate, bytesOutRate] = counts
  return { ...row, connections, bytesIn, bytesOut, connectionsRate, bytesInRate, bytesOutRate }
}

const withSearched = (row: PageRow): Row => ({
  ...row,
  searched: [
    frontendOf(row),
    backendOf(row),
    row.backend.container ?? "",
    row.service ?? "",
    row.mode,
    row.owner,
    row.state,
    row.problem?.reason ?? "",
    ...row.labels.map(({ name, value }) => `${name}=${value}`)
  ]
    .join("\n")
    .toLowerCase()
})

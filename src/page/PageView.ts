/** What the page shows now: takes one list of the mappings after the other, and finds what has changed. */

import type { ListedMapping } from "../protocol/Driver.ts"
import { refusalReasons } from "../protocol/Limits.ts"
import { countsOf } from "./Counts.ts"
import { type Described, describe, keyOf, type RowContext } from "./PageRows.ts"
import type { PageChange, PageCounts, PageHost, PageRow, PageSample } from "./PageState.ts"

export interface Look {
  /** Milliseconds since the Unix epoch. */
  readonly at: number
  /** Since the look before, by a clock that is never set; infinite at the first. */
  readonly elapsedMillis: number
  readonly listed: ReadonlyArray<ListedMapping>
  /** A new object where it differs from the one before. */
  readonly context: RowContext
}

export interface Seen extends Pick<PageChange, "rows" | "gone" | "counts"> {
  readonly host: Pick<PageHost, "mappings" | "problems" | keyof Traffic>
  /** What was mapped before, and is conflicted since this look, or served again. */
  readonly turned: ReadonlyArray<{ readonly row: PageRow; readonly to: "conflicted" | "served" }>
}

/** How much of the past `history` has. */
const historyMillis = 120_000

/** After a longer pause between two looks there is no rate of now. */
const longestPauseMillis = 20_000

type Writable<A> = { -readonly [K in keyof A]: A[K] }
type Traffic = Omit<PageRow, "id" | keyof Described>

const counters = ["connections", "bytesIn", "bytesOut"] as const
type Counter = (typeof counters)[number]

interface Tracked {
  row: Writable<PageRow>
  listed: ListedMapping
  /** The number of the look that had it last. */
  look: number
}

export class PageView {
  readonly #tracked = new Map<string, Tracked>()
  #history: Array<PageSample> = []
  #context: RowContext | undefined
  #looks = 0
  #nextId = 1

  get rows(): ReadonlyArray<PageRow> {
    return Array.from(this.#tracked.values(), ({ row }) => row)
  }

  /** The rates, the oldest first. */
  get history(): ReadonlyArray<PageSample> {
    return this.#history
  }

  look({ at, elapsedMillis, listed, context }: Look): Seen {
    const seconds = elapsedMillis > longestPauseMillis ? undefined : Math.max(elapsedMillis, 1) / 1000
    const isSameContext = context === this.#context
    const seen = { rows: [] as Array<PageRow>, counts: [] as Array<PageCounts>, turned: [] as Array<Turned> }
    const totals = new Totals()
    this.#context = context
    this.#looks++
    for (const one of listed) {
      const key = this.#unusedKey(keyOf(one))
      const tracked = this.#tracked.get(key)
      if (tracked === undefined) {
        const row = {
          id: this.#nextId++,
          ...describe(key, one, context),
          ...trafficOf(one, noCounts, seconds)
        }
        this.#tracked.set(key, { row, listed: one, look: this.#looks })
        totals.add(one, noCounts)
        seen.rows.push(row)
        continue
      }
      const { row, listed: before } = tracked
      totals.add(one, before)
      tracked.listed = one
      tracked.look = this.#looks
      if (!isSameContext || !isSame(before, one)) {
        tracked.row = { id: row.id, ...describe(key, one, context), ...trafficOf(one, before, seconds) }
        seen.rows.push(tracked.row)
        if ((before.state === "conflicted") !== (one.state === "conflicted"))
          seen.turned.push({ row: tracked.row, to: one.state === "conflicted" ? "conflicted" : "served" })
      } else if (!isIdle(row, one, before) && takeTraffic(row, trafficOf(one, before, seconds)))
        seen.counts.push(countsOf(row))
    }
    const gone = this.#forgetUnseen()
    const host = { mappings: listed.length, problems: this.#problems(), ...totals.traffic(seconds) }
    this.#history = [
      ...this.#history.filter(([then]) => then > at - historyMillis && then < at),
      [at, host.connectionsRate, host.bytesInRate, host.bytesOutRate]
    ]
    return { ...seen, gone, host }
  }

  /** Two rows that nothing tells apart get different keys. */
  #unusedKey(key: string): string {
    const isUsed = (one: string) => this.#tracked.get(one)?.look === this.#looks
    if (!isUsed(key)) return key
    let number = 2
    while (isUsed(`${key} ${number}`)) number++
    return `${key} ${number}`
  }

  #forgetUnseen(): ReadonlyArray<number> {
    const gone: Array<number> = []
    for (const [key, { row, look }] of this.#tracked)
      if (look !== this.#looks) {
        this.#tracked.delete(key)
        gone.push(row.id)
      }
    return gone
  }

  #problems(): number {
    let count = 0
    for (const { row } of this.#tracked.values()) if (row.problem !== null) count++
    return count
  }
}

type Turned = Seen["turned"][number]

type Counts = Pick<ListedMapping, Counter>

/** Of a mapping that was not there at the look before. */
const noCounts: Counts = { connections: 0, bytesIn: 0, bytesOut: 0 }

/** How many more it is than before; a lower count is that of another mapping in its place. */
const grown = (now: number | undefined, before: number | undefined): number | undefined =>
  now === undefined || before === undefined ? undefined : now < before ? now : now - before

const rateOf = (more: number | undefined, seconds: number | undefined): number | null =>
  more === undefined || seconds === undefined ? null : Math.round((more / seconds) * 10) / 10

const trafficOf = (now: Counts, before: Counts, seconds: number | undefined): Traffic => ({
  connections: now.connections ?? null,
  bytesIn: now.bytesIn ?? null,
  bytesOut: now.bytesOut ?? null,
  connectionsRate: rateOf(grown(now.connections, before.connections), seconds),
  bytesInRate: rateOf(grown(now.bytesIn, before.bytesIn), seconds),
  bytesOutRate: rateOf(grown(now.bytesOut, before.bytesOut), seconds)
})

const rates = ["connectionsRate", "bytesInRate", "bytesOutRate"] as const
const trafficKeys = [...counters, ...rates]

/** Whether nothing came since the look before, nor in the second before that: most rows, most of the time. */
const isIdle = (row: PageRow, now: Counts, before: Counts): boolean =>
  counters.every((counter) => now[counter] === before[counter]) && rates.every((rate) => !row[rate])

/** Whether it differs from what the row had. */
const takeTraffic = (row: Writable<Traffic>, traffic: Traffic): boolean => {
  let differs = false
  for (const key of trafficKeys)
    if (row[key] !== traffic[key]) {
      row[key] = traffic[key]
      differs = true
    }
  return differs
}

/** Apart from traffic; the key is the same already. */
const isSame = (a: ListedMapping, b: ListedMapping): boolean =>
  a.state === b.state &&
  a.mode === b.mode &&
  a.owner === b.owner &&
  a.sinceMillis === b.sinceMillis &&
  a.service === b.service &&
  a.container === b.container &&
  a.reason === b.reason &&
  a.open === b.open &&
  a.slots?.has === b.slots?.has &&
  a.slots?.of === b.slots?.of &&
  a.carriers?.socket === b.carriers?.socket &&
  a.carriers?.kernel === b.carriers?.kernel &&
  a.carriers?.relay === b.carriers?.relay &&
  refusalReasons.every((reason) => a.refused?.[reason] === b.refused?.[reason]) &&
  sameLabels(a.labels, b.labels)

const sameLabels = (a: ListedMapping["labels"], b: ListedMapping["labels"]): boolean =>
  a === b || (a.size === b.size && [...a].every(([name, value]) => b.get(name) === value))

/** The sums over all rows; `null` where none of them is counted. */
class Totals {
  readonly #sums = counters.map((counter) => ({ counter, counted: 0, total: 0, more: 0 }))
  #rows = 0

  add(now: Counts, before: Counts): void {
    this.#rows++
    for (const sum of this.#sums) {
      const { counter } = sum
      const count = now[counter]
      if (count === undefined) continue
      sum.counted++
      sum.total += count
      sum.more += grown(count, before[counter]) ?? 0
    }
  }

  traffic(seconds: number | undefined): Traffic {
    const [connections, bytesIn, bytesOut] = this.#sums.map(({ counted, total, more }) =>
      counted > 0 || this.#rows === 0 ? { total, rate: rateOf(more, seconds) } : { total: null, rate: null }
    )
    return {
      connections: connections?.total ?? null,
      bytesIn: bytesIn?.total ?? null,
      bytesOut: bytesOut?.total ?? null,
      connectionsRate: connections?.rate ?? null,
      bytesInRate: bytesIn?.rate ?? null,
      bytesOutRate: bytesOut?.rate ?? null
    }
  }
}

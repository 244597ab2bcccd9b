/** Which rows are listed, in which order, and below what: pure, and quick enough to be done each second. */

import type { ColumnName, View } from "./hash.ts"
import { type Row, sum } from "./model.ts"

/** What one line of the list is about; `key` stays the same while the line is about the same. */
export type Item =
  | { readonly kind: "row"; readonly key: string; readonly row: Row; readonly isBelow: boolean }
  | {
      readonly kind: "service"
      readonly key: string
      readonly name: string
      readonly total: Row
      readonly rows: ReadonlyArray<Row>
    }
  | { readonly kind: "group"; readonly key: string; readonly name: string; readonly count: number }

type Arrangement = Pick<View, "filter" | "sort" | "isDescending" | "group">

/** Rows that are wrong come first, whatever the order of the rest. */
export const arrange = (rows: Iterable<Row>, arrangement: Arrangement): ReadonlyArray<Item> => {
  const found = filtered(rows, arrangement.filter)
  if (arrangement.group === "none")
    return unitsOf(found)
      .sort((a, b) => compareBy(arrangement)(a.total, b.total))
      .flatMap(itemsOf)
  const sorted = found.sort(compareBy(arrangement))
  const nameOf = ({ problem, backend, owner }: Row) =>
    problem === null ? (arrangement.group === "owner" ? owner : (backend.container ?? "")) : wrong
  const groups = [...Map.groupBy(sorted, nameOf)]
  return groups
    .sort(([a], [b]) => Number(b === wrong) - Number(a === wrong) || collator.compare(String(a), String(b)))
    .flatMap(([name, members]) => [
      groupItem(name, arrangement.group, members.length),
      ...members.map(rowItem)
    ])
}

/** Each word must be somewhere in a row; the case does not matter. */
const filtered = (rows: Iterable<Row>, filter: string): Array<Row> => {
  const words = filter
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "")
  const found: Array<Row> = []
  for (const row of rows) if (words.every((word) => row.searched.includes(word))) found.push(row)
  return found
}

/** The group of rows that are wrong, which no name can equal. */
const wrong = Symbol("wrong")

const groupItem = (name: string | typeof wrong, group: View["group"], count: number): Item => ({
  kind: "group",
  key: name === wrong ? "group" : `group ${name}`,
  name: name === wrong ? "Wrong" : name === "" ? `No ${group}` : name,
  count
})

const rowItem = (row: Row): Item => ({ kind: "row", key: row.key, row, isBelow: false })

/** A row by itself, or a service with its backends. */
interface Unit {
  readonly total: Row
  readonly rows: ReadonlyArray<Row>
}

const unitsOf = (rows: ReadonlyArray<Row>): Array<Unit> =>
  Array.from(
    Map.groupBy(rows, (row) => (row.service === null ? row : serviceKey(row))),
    ([key, members]) =>
      typeof key === "string"
        ? { total: totalOf(members), rows: members.sort(compare.backends) }
        : { total: key, rows: [] }
  )

/** Equal for the backends of one service. */
export const serviceKey = ({ protocol, address, port, service }: Row): string =>
  `service ${protocol} ${address} ${port} ${service}`

const itemsOf = ({ total, rows }: Unit): ReadonlyArray<Item> =>
  rows.length === 0
    ? [rowItem(total)]
    : [
        { kind: "service", key: serviceKey(total), name: total.service ?? "", total, rows },
        ...rows.map((row): Item => ({ kind: "row", key: row.key, row, isBelow: true }))
      ]

/** A row with what its members sum up to, or have in common. */
const totalOf = (members: ReadonlyArray<Row>): Row => {
  const [first] = members
  const [worst] = members.toSorted((a, b) => severity(a) - severity(b))
  if (first === undefined || worst === undefined) throw new Error("a service without backends")
  const total = (of: (row: Row) => number | null) => members.map(of).reduce(sum, null)
  return {
    ...first,
    owner: members.every(({ owner }) => owner === first.owner) ? first.owner : "",
    state: worst.state,
    problem: worst.problem,
    since: Math.min(...members.map(({ since }) => since)),
    connections: total(({ connections }) => connections),
    bytesIn: total(({ bytesIn }) => bytesIn),
    bytesOut: total(({ bytesOut }) => bytesOut),
    connectionsRate: total(({ connectionsRate }) => connectionsRate),
    bytesInRate: total(({ bytesInRate }) => bytesInRate),
    bytesOutRate: total(({ bytesOutRate }) => bytesOutRate)
  }
}

type Compare = (a: Row, b: Row) => number

const collator = new Intl.Collator("en", { numeric: true })

const byText =
  (of: (row: Row) => string): Compare =>
  (a, b) =>
    collator.compare(of(a), of(b))

/** What is not known comes before 0. */
const byNumber =
  (of: (row: Row) => number | null): Compare =>
  (a, b) =>
    (of(a) ?? -1) - (of(b) ?? -1)

const compare: Record<ColumnName, Compare> = {
  frontend: (a, b) =>
    (a.port || 65_536) - (b.port || 65_536) ||
    byText(({ protocol }) => protocol)(a, b) ||
    Number(a.address.includes(":")) - Number(b.address.includes(":")) ||
    byText(({ address }) => address)(a, b),
  backends: byText(
    ({ service, backend }) => `${service ?? backend.container ?? "~"} ${backend.address} ${backend.port}`
  ),
  mode: byText(({ mode }) => mode),
  owner: byText(({ owner }) => owner),
  state: byText(({ state }) => state),
  since: byNumber(({ since }) => since),
  connections: byNumber(({ connections }) => connections),
  rate: byNumber(({ connectionsRate }) => connectionsRate),
  bytes: byNumber(({ bytesIn, bytesOut }) => sum(bytesIn, bytesOut)),
  traffic: byNumber(({ bytesInRate, bytesOutRate }) => sum(bytesInRate, bytesOutRate))
}

const severity = ({ problem }: Row): number => (problem === null ? 2 : problem.severity === "warning" ? 1 : 0)

const compareBy = ({ sort, isDescending }: Arrangement): Compare => {
  const by = compare[sort]
  return (a, b) =>
    severity(a) - severity(b) ||
    (isDescending ? by(b, a) : by(a, b)) ||
    compare.frontend(a, b) ||
    (a.key < b.key ? -1 : 1)
}

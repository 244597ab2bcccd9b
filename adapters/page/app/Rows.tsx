/** The lines of the list: a port, a service above its backends, a group. */
import type { ComponentChildren } from "preact"
import type { Item } from "./arrange.ts"
import { bytes, bytesPerSecond, count, perSecond } from "./format.ts"
import { type ColumnName, columns } from "./hash.ts"
import { backendOf, frontendOf, type Row, sum } from "./model.ts"
import { State } from "./State.tsx"
import { Age, Container, Said } from "./Text.tsx"
import { show } from "./view.ts"

const headings: Record<ColumnName, string> = {
  frontend: "Port",
  backends: "Backend",
  mode: "Mode",
  owner: "Owner",
  state: "State",
  since: "Since",
  connections: "Connections",
  rate: "New",
  bytes: "Bytes",
  traffic: "Traffic"
}

/** Figures are looked at from the greatest down. */
const descendsFirst: ReadonlySet<ColumnName> = new Set(["since", "connections", "rate", "bytes", "traffic"])

interface HeaderRowProps {
  readonly sort: ColumnName
  readonly isDescending: boolean
}

export const HeaderRow = ({ sort, isDescending }: HeaderRowProps) => (
  <thead role="rowgroup">
    <tr role="row" aria-rowindex={1}>
      {columns.map((column, at) => (
        <th
          key={column}
          role="columnheader"
          scope="col"
          class={column}
          aria-colindex={at + 1}
          aria-sort={column !== sort ? "none" : isDescending ? "descending" : "ascending"}
        >
          <button
            type="button"
            onClick={() =>
              show({
                sort: column,
                isDescending: column === sort ? !isDescending : descendsFirst.has(column)
              })
            }
          >
            {headings[column]}
          </button>
        </th>
      ))}
    </tr>
  </thead>
)

interface LineProps {
  readonly item: Item
  readonly index: number
  /** Pixels from the beginning of the list. */
  readonly start: number
  readonly isActive: boolean
  readonly isChosen: boolean
  readonly measure: (element: HTMLElement | null) => void
  readonly onOpen: () => void
}

export const Line = ({ item, index, start, isActive, isChosen, measure, onOpen }: LineProps) => (
  <tr
    role="row"
    id={`line-${index}`}
    data-index={index}
    ref={measure}
    class={classOf(item)}
    style={{ transform: `translateY(${start}px)` }}
    aria-rowindex={index + 2}
    aria-selected={isChosen}
    data-active={isActive}
    onClick={item.kind === "group" ? undefined : onOpen}
  >
    {item.kind === "group" ? <GroupCells {...item} /> : <PortCells item={item} />}
  </tr>
)

const classOf = (item: Item): string => {
  if (item.kind === "group") return "group"
  const row = item.kind === "row" ? item.row : item.total
  return [
    item.kind,
    item.kind === "row" && item.isBelow ? "below" : "",
    row.problem === null ? "" : row.problem.severity
  ].join(" ")
}

const GroupCells = ({ name, count: members }: { readonly name: string; readonly count: number }) => (
  <td role="gridcell" aria-colindex={1} aria-colspan={columns.length}>
    <Said text={name} /> <span class="quiet">{count(members)}</span>
  </td>
)

const PortCells = ({ item }: { readonly item: Exclude<Item, { kind: "group" }> }) => {
  const row = item.kind === "row" ? item.row : item.total
  const problem = item.kind === "row" ? item.row.problem : null
  const cells: Record<ColumnName, ComponentChildren> = {
    frontend: <Frontend row={row} isBelow={item.kind === "row" && item.isBelow} />,
    backends: item.kind === "row" ? <Backend row={row} /> : <Service name={item.name} rows={item.rows} />,
    mode: <Said text={row.mode} />,
    owner: <Said text={row.owner} />,
    state: <State row={row} />,
    since: <Age at={row.since} />,
    connections: figure(row.connections, count),
    rate: figure(row.connectionsRate, perSecond),
    bytes: figure(sum(row.bytesIn, row.bytesOut), bytes),
    traffic: figure(sum(row.bytesInRate, row.bytesOutRate), bytesPerSecond)
  }
  return (
    <>
      {columns.map((column, at) => (
        <td key={column} role="gridcell" class={column} aria-colindex={at + 1}>
          {cells[column]}
        </td>
      ))}
      {problem === null ? null : (
        <td role="gridcell" class="problem" aria-colindex={1} aria-colspan={columns.length}>
          <div>
            <Said text={problem.reason} />
          </div>
          {problem.remedy === null ? null : (
            <div class="remedy">
              <Said text={problem.remedy} />
            </div>
          )}
        </td>
      )}
    </>
  )
}

/** The port is what one looks for; the address is mostly the same. */
const Frontend = ({ row, isBelow }: { readonly row: Row; readonly isBelow: boolean }) => (
  <bdi class={isBelow ? "unseen" : undefined}>
    <span class="quiet">{frontendOf(row).replace(portText, "")}</span>
    {portText.exec(frontendOf(row))?.[0]}
  </bdi>
)

/** `:8080/tcp` at the end of a frontend. */
const portText = /[^:]*$/

const Backend = ({ row }: { readonly row: Row }) => {
  const { container } = row.backend
  return (
    <>
      {container === null ? null : (
        <>
          <Container name={container} />{" "}
        </>
      )}
      <bdi class={container === null ? undefined : "quiet"}>{backendOf(row)}</bdi>
    </>
  )
}

const Service = ({ name, rows }: { readonly name: string; readonly rows: ReadonlyArray<Row> }) => (
  <>
    <Said text={name} />{" "}
    <span class="quiet">
      {count(rows.length)} {rows.length === 1 ? "backend" : "backends"}
    </span>
  </>
)

/** What flows stands out from what does not. */
const figure = (value: number | null, format: (value: number) => string) => (
  <span class={value === null || value === 0 ? "quiet" : undefined}>
    {value === null ? <span title="Not counted on this host">–</span> : format(value)}
  </span>
)

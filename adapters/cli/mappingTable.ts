/** The mappings as a table sorted by port: one a row, and a row above the backends of a service. */
import { Result } from "effect"
import { idleLabel } from "../../src/mapper/model/Labels.ts"
import { type Address, parseAddress } from "../../src/protocol/Address.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { containerLabel, errorLabel, publishLabel, toLabel } from "../../src/protocol/FollowLabels.ts"
import { refusalReasons } from "../../src/protocol/Limits.ts"
import { containerName, listedBackend, listedFrontend } from "../../src/protocol/ListedText.ts"
import { shareLabel } from "../../src/protocol/ServiceName.ts"
import { age, bytes, count } from "./humanise.ts"
import { type Column, printable, tableLines } from "./Table.ts"

export const mappingLines = (
  mappings: ReadonlyArray<ListedMapping>,
  nowMillis: number,
  width: number
): ReadonlyArray<string> => {
  const rows = sorted(mappings)
  const troubles = [...new Set(rows.flatMap(troubleText))].flatMap((text) => wrapped(text, width))
  return [
    ...tableLines(columnsOf(withServices(rows), nowMillis), width),
    ...(troubles.length > 0 ? ["", ...troubles] : [])
  ]
}

/** Why mappings are not served, containers not published and interfaces waited for: too long for the table. */
const troubleText = (row: ListedMapping): ReadonlyArray<string> => {
  const { container, labels, reason } = row
  if (reason === undefined) return []
  const publish = labels.get(publishLabel) ?? (row.frontendIp === "" ? [] : listedFrontend(row))
  const what = [
    container === undefined ? (labels.get(toLabel) ?? []) : containerText(container),
    publish
  ].flat()
  return [printable([...what, reason].join(": "))]
}

/** Labels that are shown elsewhere. */
const unlisted = [errorLabel, containerLabel, idleLabel, shareLabel]

/** Wraps at words; cuts a word longer than a line. Lines after the first are indented. */
const wrapped = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`
    if (longer.length <= width) line = longer
    else {
      if (line !== "") lines.push(line)
      line = `  ${word}`.slice(0, Math.max(width, 3))
    }
  }
  return [...lines, line]
}

/** By port, then protocol, then address; mappings without a host port come last. */
export const sorted = (mappings: ReadonlyArray<ListedMapping>): ReadonlyArray<ListedMapping> =>
  mappings
    .map((mapping) => ({ mapping, host: addressOf(mapping.frontendIp), to: addressOf(mapping.backendIp) }))
    .sort(
      (a, b) =>
        (a.mapping.frontendPort || 65536) - (b.mapping.frontendPort || 65536) ||
        a.mapping.protocol - b.mapping.protocol ||
        compare(a.host, b.host) ||
        (a.mapping.at?.host ?? "").localeCompare(b.mapping.at?.host ?? "") ||
        compare(a.to, b.to) ||
        a.mapping.backendPort - b.mapping.backendPort
    )
    .map(({ mapping }) => mapping)

interface Row extends ListedMapping {
  /** Of the row of a service: how many backends it has. */
  readonly backends?: number
  /** Whether it is below the row of its service. */
  readonly isBelow?: boolean
}

/** Puts a row above the backends of each service, with their sums. */
const withServices = (rows: ReadonlyArray<ListedMapping>): ReadonlyArray<Row> =>
  [
    ...Map.groupBy(rows, (row) =>
      row.service === undefined ? row : `${row.at?.host} ${listedFrontend(row)} ${row.service}`
    )
  ].flatMap(([key, members]): ReadonlyArray<Row> => {
    const [first] = members
    if (typeof key !== "string" || first === undefined) return members
    const sum = (counter: "connections" | "bytesIn" | "bytesOut") =>
      members.reduce<number | undefined>((total, member) => {
        const value = member[counter]
        return total === undefined || value === undefined ? undefined : total + value
      }, 0)
    const same = (text: (row: ListedMapping) => string) =>
      members.every((member) => text(member) === text(first)) ? text(first) : ""
    const service: Row = {
      ...first,
      backends: members.length,
      owner: same(({ owner }) => owner),
      state: worst(members),
      sinceMillis: Math.min(...members.map(({ sinceMillis }) => sinceMillis)),
      container: undefined,
      slots: undefined,
      open: undefined,
      connections: sum("connections"),
      bytesIn: sum("bytesIn"),
      bytesOut: sum("bytesOut"),
      refused: Object.fromEntries(
        refusalReasons.map((reason) => [
          reason,
          members.reduce((total, { refused }) => total + (refused?.[reason] ?? 0), 0)
        ])
      )
    }
    return [service, ...members.map((member) => ({ ...member, isBelow: true }))]
  })

const worst = (members: ReadonlyArray<ListedMapping>): ListedMapping["state"] =>
  (["conflicted", "stale", "unconfirmed", "live", "waiting", "waking", "drained", "asleep"] as const).find(
    (state) => members.some((member) => member.state === state)
  ) ?? "standby"

const backendCell = (row: Row): string => {
  if (row.backends === undefined) return row.isBelow ? `  ${listedBackend(row)}` : listedBackend(row)
  return printable(`${row.service}: ${row.backends} ${row.backends === 1 ? "backend" : "backends"}`)
}

const columnsOf = (rows: ReadonlyArray<Row>, nowMillis: number): ReadonlyArray<Column> => {
  const column = (header: string, cell: (row: Row) => string, more: Partial<Column> = {}) => ({
    header,
    cells: rows.map(cell),
    ...more
  })
  const columns: ReadonlyArray<Column> = [
    column("HOST", ({ at }) => printable(at?.host ?? "")),
    column("FRONTEND", (row) => (row.isBelow ? "" : listedFrontend(row))),
    column("BACKEND", backendCell),
    column("CONTAINER", ({ container }) => containerText(container), {
      dispensable: 3,
      shrinksTo: 12,
      keepsEnd: true
    }),
    column("SLOTS", ({ slots }) => (slots === undefined ? "" : `${slots.has}/${slots.of}`), {
      align: "right",
      dispensable: 3
    }),
    column("MODE", ({ mode }) => printable(mode)),
    column("OWNER", ({ owner }) => printable(owner), { shrinksTo: 12, keepsEnd: true }),
    column("STATE", ({ state }) => state),
    column("AGE", ({ sinceMillis }) => age(nowMillis - sinceMillis), { align: "right", dispensable: 1 }),
    column("CONNS", ({ connections }) => optional(count, connections), { align: "right", dispensable: 2 }),
    column("OPEN", ({ open }) => (open === undefined ? "" : count(open)), { align: "right" }),
    column("IN", ({ bytesIn }) => optional(bytes, bytesIn), { align: "right", dispensable: 4 }),
    column("OUT", ({ bytesOut }) => optional(bytes, bytesOut), { align: "right", dispensable: 4 }),
    column("REFUSED", refusedText, { dispensable: 2 }),
    column("LABELS", ({ labels, backends }) => (backends === undefined ? labelsText(labels) : ""), {
      dispensable: 5,
      shrinksTo: 20
    })
  ]
  // Drops a column in which nothing is known, as where the host counts no bytes.
  const known = (cells: ReadonlyArray<string>) => cells.some((cell) => cell !== "" && cell !== "-")
  const unknowable = rows.some(({ at }) => at !== undefined) ? unknownOfOthers : []
  return columns.filter(
    ({ header, cells }) => ![...mayBeEmpty, ...unknowable].includes(header) || known(cells)
  )
}

const mayBeEmpty = ["HOST", "CONTAINER", "SLOTS", "OPEN", "IN", "OUT", "REFUSED", "LABELS"]

/** In a list of the cluster. */
const unknownOfOthers = ["MODE", "CONNS"]

const containerText = (container = ""): string => printable(containerName(container))

/** `12 rate, 3 allow`: how many clients each label refused, if any. */
const refusedText = ({ refused }: Row): string =>
  refusalReasons
    .flatMap((reason) => {
      const times = refused?.[reason] ?? 0
      return times === 0 ? [] : [`${count(times)} ${reason}`]
    })
    .join(", ")

const labelsText = (labels: ReadonlyMap<string, string>): string =>
  printable(
    [...labels].flatMap(([name, value]) => (unlisted.includes(name) ? [] : [`${name}=${value}`])).join(",")
  )

const optional = (text: (value: number) => string, value: number | undefined): string =>
  value === undefined ? "-" : text(value)

const addressOf = (text: string): Address | undefined => Result.getOrUndefined(parseAddress(text))

const compare = (a: Address | undefined, b: Address | undefined): number => {
  if (a === undefined || b === undefined) return Number(a === undefined) - Number(b === undefined)
  return a.family - b.family || Buffer.compare(a.octets, b.octets)
}

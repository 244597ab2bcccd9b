/**
 * A text table for a terminal of a given width. If it does not fit, it drops the least important columns first; then
 * it puts the second address below the first; at last every row becomes a paragraph. Only columns that may be cut are
 * cut.
 */
import { CliOutput } from "effect/cli"

export interface Column {
  readonly header: string
  readonly cells: ReadonlyArray<string>
  readonly align?: "right"
  /** Dropped if the width does not suffice, the greatest first and equal ones together; never if `undefined`. */
  readonly dispensable?: number
  /** May be cut down to this width. */
  readonly shrinksTo?: number
  /** Cut in the middle: the end matters as much as the beginning. */
  readonly keepsEnd?: boolean
}

const gap = "  "

/**
 * The lines, header first, for `width` columns. Of `columns`, the second is the one that is put below the first where
 * they don't fit side by side.
 */
export const tableLines = (columns: ReadonlyArray<Column>, width: number): ReadonlyArray<string> => {
  const fitting = fitted(columns, width)
  if (lineWidth(fitting) <= width) return sideBySide(fitting)
  const [first, second, ...rest] = columns
  if (first === undefined || second === undefined) return sideBySide(fitting)
  const below = second.cells.map((cell) => `${gap}-> ${cell}`)
  const above = fitted([{ ...first, header: `${first.header} -> ${second.header}` }, ...rest], width)
  if (lineWidth(above) <= width) {
    const [header = "", ...lines] = sideBySide(above)
    return [header, ...lines.flatMap((line, row) => [line, below[row] ?? ""])]
  }
  const others = fitted(rest, width - gap.length)
  return first.cells.flatMap((cell, row) => [
    cell,
    below[row] ?? "",
    `${gap}${others.map((column) => column.cells[row] ?? "").join(gap)}`
  ])
}

/** Foreign text as one line that is safe for a terminal: control characters are escaped. */
export const printable = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`
  })

const fitted = (columns: ReadonlyArray<Column>, width: number): ReadonlyArray<Column> => {
  const shrunk = lineWidth(columns) <= width ? columns : shrink(columns, width)
  if (lineWidth(shrunk) <= width) return shrunk
  const least = Math.max(...columns.map(({ dispensable = 0 }) => dispensable))
  return least === 0
    ? shrunk
    : fitted(
        columns.filter(({ dispensable = 0 }) => dispensable < least),
        width
      )
}

const shrink = (columns: ReadonlyArray<Column>, width: number): ReadonlyArray<Column> => {
  let excess = lineWidth(columns) - width
  return columns.map((column) => {
    const natural = columnWidth(column)
    const target = Math.max(column.shrinksTo ?? natural, natural - excess)
    if (excess <= 0 || target >= natural) return column
    excess -= natural - target
    return { ...column, cells: column.cells.map((cell) => cut(cell, target, column.keepsEnd === true)) }
  })
}

const cut = (text: string, width: number, keepsEnd: boolean): string => {
  if (cellWidth(text) <= width) return text
  const tail = keepsEnd ? Math.floor((width - 1) / 2) : 0
  const characters = [...text]
  return `${within(characters, width - 1 - tail).join("")}…${within(characters.reverse(), tail).reverse().join("")}`
}

/** The first characters, as many as fit in the width. */
const within = (characters: ReadonlyArray<string>, width: number): Array<string> => {
  let taken = 0
  const end = characters.findIndex((character) => {
    taken += cellWidth(character)
    return taken > width
  })
  return characters.slice(0, end === -1 ? characters.length : end)
}

const sideBySide = (columns: ReadonlyArray<Column>): ReadonlyArray<string> => {
  const widths = columns.map(columnWidth)
  const line = (texts: ReadonlyArray<string>) =>
    texts
      .map((text, index) => {
        const padding = " ".repeat(Math.max(0, (widths[index] ?? 0) - cellWidth(text)))
        return columns[index]?.align === "right" ? padding + text : text + padding
      })
      .join(gap)
      .trimEnd()
  const rows = columns[0]?.cells.length ?? 0
  return [
    line(columns.map(({ header }) => header)),
    ...Array.from({ length: rows }, (_, row) => line(columns.map(({ cells }) => cells[row] ?? "")))
  ]
}

const lineWidth = (columns: ReadonlyArray<Column>): number =>
  columns.reduce((sum, column) => sum + columnWidth(column), 0) + gap.length * (columns.length - 1)

/** Measured once: a column may have as many cells as a host has ports. */
const columnWidth = (column: Column): number => {
  const known = widths.get(column)
  if (known !== undefined) return known
  let width = CliOutput.displayWidth(column.header)
  for (const cell of column.cells) width = Math.max(width, cellWidth(cell))
  widths.set(column, width)
  return width
}

const widths = new WeakMap<Column, number>()

const cellWidth = (text: string): number =>
  /^[\x20-\x7e]*$/.test(text) ? text.length : CliOutput.displayWidth(text)

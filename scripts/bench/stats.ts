/** Percentiles of samples in microseconds, and their format. */

export interface Summary {
  readonly p50: number
  readonly p99: number
}

export const summarize = (micros: ReadonlyArray<number>): Summary => {
  const sorted = [...micros].sort((a, b) => a - b)
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}

export const median = (numbers: ReadonlyArray<number>): number =>
  [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN

export const row = (cells: ReadonlyArray<string | number>): string =>
  cells.map((cell, index) => (index === 0 ? String(cell).padEnd(34) : String(cell).padStart(12))).join("")

export const millis = (micros: number): string => `${(micros / 1000).toFixed(3)} ms`

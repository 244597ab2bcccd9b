/** Percentiles of samples in microseconds, and their format. */

export const summarize = (micros: ReadonlyArray<number>) => {
  const sorted = [...micros].sort((a, b) => a - b)
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}

export const median = (numbers: ReadonlyArray<number>): number => summarize(numbers).p50

export const row = (cells: ReadonlyArray<string | number>): string =>
  cells.map((cell, index) => (index === 0 ? String(cell).padEnd(34) : String(cell).padStart(12))).join("")

/** Prints a row of times and what else is known of them; returns their median. */
export const printTimes = (name: string, micros: ReadonlyArray<number>, more = ""): number => {
  const { p50, p99 } = summarize(micros)
  console.log(row([name, millis(p50), millis(p99), more]))
  return p50
}

export const ratio = (over: number, under: number): string => (over / under).toFixed(2)

export const millis = (micros: number): string => `${(micros / 1000).toFixed(3)} ms`

/** Figures for people to read, each short enough for a column. */

/** `45s`, `12m`, `3h`, `5d`, `6w`, `2y`, rounded down; a time in the future (another host's clock) is `0s`. */
export const age = (millis: number): string => {
  const seconds = Math.max(0, Math.floor(millis / 1000))
  const { size, unit } = ages.find(({ from }) => seconds >= from) ?? { size: 1, unit: "s" }
  return `${Math.floor(seconds / size)}${unit}`
}

const day = 86_400
const ages = [
  { from: 730 * day, size: 365 * day, unit: "y" },
  { from: 14 * day, size: 7 * day, unit: "w" },
  { from: 2 * day, size: day, unit: "d" },
  { from: 3600, size: 3600, unit: "h" },
  { from: 60, size: 60, unit: "m" }
]

/** `999B`, `1.23kB`, `45.6MB`: powers of 1000 as Docker counts them, three digits. */
export const bytes = (count: number): string => `${scaled(count)}B`

/** `99999`, `123k`, `4.56M`: exact as long as it is short. */
export const count = (number: number): string => (number < 100_000 ? `${number}` : scaled(number))

const units = ["", "k", "M", "G", "T", "P"]

const scaled = (number: number): string => {
  let scale = 0
  let value = number
  // 999.5 of one unit would be written as 1000 of it.
  while (value >= (scale === 0 ? 1000 : 999.5) && scale < units.length - 1) {
    value /= 1000
    scale++
  }
  const digits = scale === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
  return `${value.toFixed(digits)}${units[scale]}`
}

/** Figures, times and names as a reader sees them: in the units, the words and the zone of the browser. */

const whole = new Intl.NumberFormat()
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 3 })
const short = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 2 })

/** Exact as long as it is short: `99,999`, then `123K`. */
export const count = (value: number): string => (value < 100_000 ? whole : compact).format(value)

/** `12/s`, `0.4/s`. */
export const perSecond = (value: number): string =>
  `${value < 10 ? short.format(value) : count(Math.round(value))}/s`

export const bytes = (value: number): string => scaled(value, "")

export const bytesPerSecond = (value: number): string => scaled(value, "-per-second")

export const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 }).format

const byteUnits = ["kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte"]

const formats = new Map<string, Intl.NumberFormat>()

const unitFormat = (unit: string, unitDisplay: "short" | "narrow"): Intl.NumberFormat => {
  const key = `${unit} ${unitDisplay}`
  const format =
    formats.get(key) ??
    new Intl.NumberFormat(undefined, { style: "unit", unit, unitDisplay, maximumSignificantDigits: 3 })
  formats.set(key, format)
  return format
}

/** Powers of 1000, as Docker counts them, to three digits; from kilobytes on, since a byte has no short name but "byte". */
const scaled = (value: number, per: string): string => {
  let scale = 0
  let rest = value / 1000
  // 999.5 of one unit would be written as 1000 of it.
  while (rest >= 999.5 && scale < byteUnits.length - 1) {
    rest /= 1000
    scale++
  }
  return unitFormat(`${byteUnits[scale]}${per}`, "short").format(rest)
}

const spans = [
  { unit: "year", seconds: 365 * 86_400 },
  { unit: "week", seconds: 7 * 86_400 },
  { unit: "day", seconds: 86_400 },
  { unit: "hour", seconds: 3600 },
  { unit: "minute", seconds: 60 }
] as const

/** `45s`, `12m`, `3h`, `5d`, rounded down; what is yet to come, by another clock, is `0s`. */
export const age = (millis: number): string => {
  const seconds = Math.max(0, Math.floor(millis / 1000))
  const { unit, seconds: size } = spans.find((span) => seconds >= 2 * span.seconds) ?? {
    unit: "second",
    seconds: 1
  }
  return unitFormat(unit, "narrow").format(Math.floor(seconds / size))
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" })
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" })
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" })

/** With the day, the second and the zone. */
export const exactTime = (millis: number): string => exact.format(millis)

export const clockTime = (millis: number): string => clock.format(millis)

/** The time alone if it is of today. */
export const time = (millis: number, nowMillis: number): string =>
  (new Date(millis).toDateString() === new Date(nowMillis).toDateString() ? clock : day).format(millis)

/**
 * What others named, in characters that can be seen: a control character, and one that turns the direction of what
 * follows, as its number. The element that shows it isolates the rest.
 */
export const visible = (text: string): string =>
  text.replace(unseen, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for.
const unseen = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g

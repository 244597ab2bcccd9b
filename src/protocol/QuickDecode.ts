/**
 * The fast path of decoding: decodes nearly every message in one pass. It returns what the schema beside it would
 * return, or `unsure`; then the schema decides, and words the errors.
 */
import { JsonNumber, JsonObject } from "./GoJson.ts"

export const unsure: unique symbol = Symbol("portmapper/protocol/unsure")

export type Quick = (value: unknown) => unknown

export interface QuickField {
  readonly name: string
  readonly quick: Quick
  /** The encoded zero value; a key without one stays missing. */
  readonly zero: null | boolean | number | string | undefined
  /** The most elements of a list. */
  readonly max: number | undefined
}

/** An object with the given fields; `unsure` if a key is repeated. */
export const quickStruct = (fields: ReadonlyArray<QuickField>): Quick => {
  const places = placesOf(fields.map(({ name }) => name))
  const zeros = Object.fromEntries(
    fields.flatMap(({ name, quick, zero }) => (zero === undefined ? [] : [[name, quick(zero)]]))
  )
  return (value) => {
    const entries = entriesOf(value)
    if (entries === undefined) return unsure
    const out = { ...zeros }
    let seen = 0
    for (const [key, given] of entries) {
      const place = places(key)
      const field = place === undefined ? undefined : fields[place]
      if (place === undefined || field === undefined || given === undefined) continue
      if ((seen & (1 << place)) !== 0 || isLongerThan(field.max, given)) return unsure
      seen |= 1 << place
      if (given === null) continue
      const decoded = field.quick(given)
      if (decoded === unsure) return unsure
      out[field.name] = decoded
    }
    return out
  }
}

export const quickPointer =
  (quick: Quick): Quick =>
  (value) =>
    value === null ? null : quick(value)

export const quickArray =
  (quick: Quick): Quick =>
  (value) => {
    if (!Array.isArray(value)) return unsure
    const out: Array<unknown> = []
    for (const item of value) {
      const decoded = quick(item)
      if (decoded === unsure) return unsure
      out.push(decoded)
    }
    return out
  }

export const quickStringMap: Quick = (value) => {
  const entries = entriesOf(value)
  if (entries === undefined) return unsure
  const map = new Map<string, string>()
  for (const [key, text] of entries) {
    if (typeof text !== "string") return unsure
    map.set(key.toWellFormed(), text.toWellFormed())
  }
  return map
}

export const isLongerThan = (max: number | undefined, value: unknown): boolean =>
  max !== undefined && Array.isArray(value) && value.length > max

/** Finds which of these names a key is, in any case, as Go does. */
export const placesOf = (names: ReadonlyArray<string>): ((key: string) => number | undefined) => {
  const places = new Map(
    names.flatMap((name, place) => [[name, place] as const, [folded(name), place] as const])
  )
  return (key) => places.get(key) ?? places.get(folded(key))
}

/** The entries of an object: a `JsonObject` or a plain one. */
export const entriesOf = (value: unknown): ReadonlyArray<readonly [string, unknown]> | undefined => {
  if (value instanceof JsonObject) return value.entries
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined
  // A Map has no properties: as a plain object, its labels would be lost silently.
  return value instanceof JsonNumber || value instanceof Map ? undefined : Object.entries(value)
}

/** Go's simple case folding: beyond ASCII only U+017F and the Kelvin sign fold to a letter of our names. */
const folded = (key: string): string => key.toLowerCase().replaceAll("\u017f", "s")

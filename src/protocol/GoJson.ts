/**
 * Parses JSON as Go's `encoding/json` does: it refuses the same texts with the same messages, and keeps everything
 * that Go would look at. An object keeps its entries in order, repeated keys included; a number that is not a plain
 * integer keeps its text. `GoSchema.ts` decides what the values mean.
 *
 * Source: encoding/json/scanner.go and decode.go (unquote). One limit is ours: `maxDepth`, where Go has 10,000.
 */
import { Result } from "effect"

/** The deepest nesting of objects and arrays that is accepted, so that no text can exhaust the stack. */
export const maxDepth = 500

export type JsonValue = null | boolean | number | string | JsonNumber | JsonObject | ReadonlyArray<JsonValue>

/**
 * A number that is not a plain integer, or too large to be exact, as text: Go distinguishes `80.0` and `8e1` from
 * `80`.
 */
export class JsonNumber {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** An object as written: every entry in order, with any key (`__proto__`), repeated keys included. */
export class JsonObject {
  readonly entries: ReadonlyArray<readonly [key: string, value: JsonValue]>
  constructor(entries: ReadonlyArray<readonly [key: string, value: JsonValue]>) {
    this.entries = entries
  }
}

/** The value of a JSON text, or Go's message for what is wrong with it. */
export const parse = (text: string): Result.Result<JsonValue, string> => {
  const reader = new Reader(text)
  try {
    return Result.succeed(reader.document())
  } catch (error) {
    if (error === reader) return Result.fail(reader.problem)
    throw error
  }
}

/** One line of JSON for plain values, for the result of `parse`, or for any mixture of the two. */
export const stringify = (value: unknown): string => {
  if (value instanceof JsonNumber) return value.text
  if (value instanceof JsonObject) return objectText(value.entries)
  if (Array.isArray(value)) return `[${value.map(stringify).join(",")}]`
  if (typeof value === "object" && value !== null) {
    return objectText(Object.entries(value).filter(([, item]) => item !== undefined))
  }
  return JSON.stringify(value) ?? "null"
}

/**
 * A value as JSON text for an error message, at most `limit` characters long; a longer one is cut and ends in `…`.
 * Never throws, even for values that JSON can't hold (a function, a bigint, a circular object), which only a caller
 * in process can send.
 */
export const preview = (value: unknown, limit = 60): string =>
  shortened(previewText(value, limit + 1, 0), limit)

/** Of at most `limit` characters; ends in an ellipsis where some were left out. */
export const shortened = (text: string, limit: number): string =>
  text.length <= limit
    ? text
    : `${text
        .slice(0, limit - 1)
        .toWellFormed()
        .replace(/\uFFFD$/, "")}…`

const objectText = (entries: ReadonlyArray<readonly [string, unknown]>): string =>
  `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${stringify(item)}`).join(",")}}`

const previewText = (value: unknown, budget: number, depth: number): string => {
  if (value instanceof JsonNumber) return value.text
  if (typeof value === "string") return JSON.stringify(value.slice(0, budget))
  if (typeof value === "bigint" || Object.is(value, -0)) return Object.is(value, -0) ? "-0" : `${value}`
  if (typeof value !== "object" || value === null) return String(value)
  if (depth > 8) return "…"
  const list = Array.isArray(value)
  const entries: Iterable<readonly [string, unknown]> = list
    ? value.map((item) => ["", item] as const)
    : value instanceof JsonObject
      ? value.entries
      : Object.entries(value)
  let text = list ? "[" : "{"
  for (const [key, item] of entries) {
    if (text.length > budget) return text
    if (text.length > 1) text += ","
    if (!list) text += `${JSON.stringify(key)}:`
    text += previewText(item, budget - text.length, depth + 1)
  }
  return text + (list ? "]" : "}")
}

/** A recursive-descent parser. It throws itself, with `problem` set, so that its catch takes no other error. */
class Reader {
  problem = ""
  private at = 0
  private depth = 0
  private readonly text: string

  constructor(text: string) {
    this.text = text
  }

  document(): JsonValue {
    const value = this.value()
    if (!Number.isNaN(this.next())) this.refuse("after top-level value")
    return value
  }

  /** The code of the next character that is not white space, without consuming it; NaN at the end. */
  private next(): number {
    for (;;) {
      const code = this.text.charCodeAt(this.at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return code
      this.at++
    }
  }

  private value(): JsonValue {
    const code = this.next()
    switch (code) {
      case 0x22: // "
        return this.string()
      case 0x7b: // {
        return this.object()
      case 0x5b: // [
        return this.array()
      case 0x74: // t
        return this.literal("true", true)
      case 0x66: // f
        return this.literal("false", false)
      case 0x6e: // n
        return this.literal("null", null)
      default:
        if (isDigit(code) || code === 0x2d) return this.number(code)
        return this.refuse("looking for beginning of value")
    }
  }

  private object(): JsonObject {
    this.enter()
    const entries: Array<readonly [string, JsonValue]> = []
    if (this.next() === 0x7d) {
      this.leave()
      return new JsonObject(entries)
    }
    for (;;) {
      if (this.next() !== 0x22) return this.refuse("looking for beginning of object key string")
      const key = this.string()
      if (this.next() !== 0x3a) return this.refuse("after object key")
      this.at++
      entries.push([key, this.value()])
      const code = this.next()
      if (code === 0x7d) {
        this.leave()
        return new JsonObject(entries)
      }
      if (code !== 0x2c) return this.refuse("after object key:value pair")
      this.at++
    }
  }

  private array(): ReadonlyArray<JsonValue> {
    this.enter()
    const items: Array<JsonValue> = []
    if (this.next() === 0x5d) {
      this.leave()
      return items
    }
    for (;;) {
      items.push(this.value())
      const code = this.next()
      if (code === 0x5d) {
        this.leave()
        return items
      }
      if (code !== 0x2c) return this.refuse("after array element")
      this.at++
    }
  }

  private enter(): void {
    this.at++
    if (++this.depth > maxDepth) this.fail(`nested deeper than ${maxDepth} levels`)
  }

  private leave(): void {
    this.at++
    this.depth--
  }

  private literal<A>(word: string, value: A): A {
    for (let index = 1; index < word.length; index++) {
      this.at++
      if (this.text.charCodeAt(this.at) !== word.charCodeAt(index)) {
        return this.refuseInside(`in literal ${word} (expecting '${word[index]}')`)
      }
    }
    this.at++
    return value
  }

  private number(first: number): number | JsonNumber {
    const start = this.at
    let code = first
    if (code === 0x2d) {
      code = this.text.charCodeAt(++this.at)
      if (!isDigit(code)) return this.refuseInside("in numeric literal")
    }
    let value = code - 0x30
    code = this.text.charCodeAt(++this.at)
    if (value !== 0) {
      for (; isDigit(code); code = this.text.charCodeAt(++this.at)) value = value * 10 + (code - 0x30)
    }
    const digits = this.at - start
    if (code === 0x2e) {
      code = this.text.charCodeAt(++this.at)
      if (!isDigit(code)) return this.refuseInside("after decimal point in numeric literal")
      while (isDigit(code)) code = this.text.charCodeAt(++this.at)
    }
    if (code === 0x65 || code === 0x45) {
      code = this.text.charCodeAt(++this.at)
      if (code === 0x2b || code === 0x2d) code = this.text.charCodeAt(++this.at)
      if (!isDigit(code)) return this.refuseInside("in exponent of numeric literal")
      while (isDigit(code)) code = this.text.charCodeAt(++this.at)
    }
    if (this.at - start === digits && digits <= 15) return first === 0x2d ? -value : value
    const text = this.text.slice(start, this.at)
    return text.length === digits && Number.isSafeInteger(Number(text)) ? Number(text) : new JsonNumber(text)
  }

  private string(): string {
    const text = this.text
    let start = ++this.at
    let value = ""
    let surrogates = false
    for (;;) {
      const code = text.charCodeAt(this.at)
      if (code === 0x22) {
        value = value === "" ? text.slice(start, this.at) : value + text.slice(start, this.at)
        this.at++
        // Go's decoder replaces each lone surrogate by U+FFFD.
        return surrogates ? value.toWellFormed() : value
      }
      if (code === 0x5c) {
        value += text.slice(start, this.at) + this.escape()
        surrogates = true
        start = this.at
      } else {
        if (code >= 0xd800 && code <= 0xdfff) surrogates = true
        else if (!(code >= 0x20)) return this.refuse("in string literal")
        this.at++
      }
    }
  }

  private escape(): string {
    const code = this.text.charCodeAt(++this.at)
    if (code === 0x75) {
      let unit = 0
      for (let index = 0; index < 4; index++) {
        const digit = hexValue(this.text.charCodeAt(++this.at))
        if (digit === -1) return this.refuseInside("in \\u hexadecimal character escape")
        unit = unit * 16 + digit
      }
      this.at++
      return String.fromCharCode(unit)
    }
    const index = escapes.indexOf(String.fromCharCode(code))
    if (index === -1 || Number.isNaN(code)) return this.refuseInside("in string escape code")
    this.at++
    return escaped.charAt(index)
  }

  private refuse(where: string): never {
    const point = this.text.codePointAt(this.at)
    return this.fail(point === undefined ? "unexpected end of JSON input" : invalid(point, where))
  }

  /** Inside a number, a literal or an escape, Go treats the end of the text as a space. */
  private refuseInside(where: string): never {
    return this.fail(invalid(this.text.codePointAt(this.at) ?? 0x20, where))
  }

  private fail(problem: string): never {
    this.problem = problem
    throw this
  }
}

const escapes = '"\\/bfnrt'
const escaped = '"\\/\b\f\n\r\t'

const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39

const hexValue = (code: number): number =>
  isDigit(code)
    ? code - 0x30
    : code >= 0x61 && code <= 0x66
      ? code - 0x57
      : code >= 0x41 && code <= 0x46
        ? code - 0x37
        : -1

const invalid = (point: number, where: string): string => `invalid character ${quoted(point)} ${where}`

/**
 * A character as Go's messages quote it: Go works on bytes, so a character beyond ASCII shows as its first UTF-8
 * byte.
 */
const quoted = (point: number): string => {
  const byte =
    point < 0x80
      ? point
      : point < 0x800
        ? 0xc0 | (point >> 6)
        : point < 0x10000
          ? 0xe0 | (point >> 12)
          : 0xf0 | (point >> 18)
  if (byte === 0x27) return "'\\''"
  if (byte === 0x22) return "'\"'"
  if (byte === 0x5c) return "'\\\\'"
  const named = controls.indexOf(String.fromCharCode(byte))
  if (named !== -1) return `'\\${"abfnrtv".charAt(named)}'`
  return byte < 0x20 || byte === 0x7f
    ? `'\\x${byte.toString(16).padStart(2, "0")}'`
    : `'${String.fromCharCode(byte)}'`
}

const controls = "\x07\b\f\n\r\t\v"

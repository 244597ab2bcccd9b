/**
 * Schemas that decode what Go's `encoding/json` decodes, from a `GoJson` tree or from plain JavaScript values.
 *
 * `goStruct` follows Go: keys match in any case, an unknown key is ignored, a missing key is the zero value, `null`
 * is the zero value and overrides nothing, the last of repeated scalars wins (all of them are checked), repeated
 * objects merge. One rule is ours: a repeated array is refused, where Go would blend the two.
 *
 * Source: encoding/json/decode.go (object, literalStore), fold.go.
 */
import { Effect, Result, Schema, SchemaGetter, SchemaIssue, SchemaParser } from "effect"
import { Address, notAnAddress, parseAddress } from "./Address.ts"
import { JsonObject, parse, preview } from "./GoJson.ts"
import {
  entriesOf,
  isLongerThan,
  placesOf,
  type Quick,
  quickArray,
  quickPointer,
  quickStringMap,
  quickStruct,
  unsure
} from "./QuickDecode.ts"
import { type Issue, RequestError } from "./RequestError.ts"

/**
 * A field of a Go struct: its schema, the encoded zero value (`undefined`: a missing key stays missing), and what a
 * repeated key does.
 */
export interface Field<S extends Schema.Constraint> {
  readonly schema: S
  readonly zero: (S["Encoded"] & (null | boolean | number | string)) | undefined
  readonly repeated: "last" | "merge" | "refuse"
  /** The most elements of a list; a longer one is refused before any element is decoded. */
  readonly max?: number | undefined
}

type Fields = { readonly [name: string]: Field<Schema.Constraint> }
type SchemasOf<F extends Fields> = { readonly [K in keyof F]: F[K]["schema"] }

const anAddress = "an IPv4 or IPv6 address"

/** The fast path of each schema that has one, by the schema object. */
const quickWays = new WeakMap<object, Quick>()
const withQuick = <S extends object>(schema: S, quick: Quick | undefined): S => {
  if (quick !== undefined) quickWays.set(schema, quick)
  return schema
}

/** A Go struct. Its type and its encoded form have every field that has a zero value, in the order given. */
export const goStruct = <const F extends Fields>(fields: F) => {
  const named = Object.entries(fields)
  const schemas = Object.fromEntries(named.map(([name, { schema }]) => [name, schema])) as SchemasOf<F>
  const struct = Schema.Struct(schemas)
  const whole = Schema.declare<(typeof struct)["Encoded"]>((_): _ is (typeof struct)["Encoded"] => true).pipe(
    Schema.decodeTo(struct, {
      decode: SchemaGetter.transformEffect(foldInto<(typeof struct)["Encoded"]>(named)),
      encode: SchemaGetter.passthrough()
    })
  )
  const quick = named.flatMap(([name, { schema, zero, max }]) => {
    const way = quickWays.get(schema)
    return way === undefined ? [] : [{ name, quick: way, zero, max }]
  })
  return withQuick(whole, quick.length === named.length ? quickStruct(quick) : undefined)
}

/** A Go `int` (here: as far as a JavaScript number is exact). */
const Integer = numberThat(Number.isSafeInteger, "an integer")

/** A Go `uint16`: a port, or 0 for none. */
const Uint16 = numberThat(
  (value) => Number.isInteger(value) && value >= 0 && value <= 65535 && !Object.is(value, -0),
  "an integer from 0 to 65535"
)

const Bool = withQuick(Schema.Boolean.annotate({ expected: "true or false" }), (value) =>
  typeof value === "boolean" ? value : unsure
)

/** A Go `string`: lone surrogates are replaced, even in values from a caller in process. */
export const Text = withQuick(
  Schema.String.annotate({ expected: "a string" }).pipe(
    Schema.decodeTo(Schema.String, {
      decode: SchemaGetter.transform((text: string) => text.toWellFormed()),
      encode: SchemaGetter.passthrough()
    })
  ),
  (value) => (typeof value === "string" ? value.toWellFormed() : unsure)
)

/** A Go `netip.Addr`: `undefined` is the zero `Addr`, which travels as `""`. */
const OptionalAddress = withQuick(
  Schema.String.annotate({ expected: anAddress }).pipe(
    Schema.decodeTo(Schema.UndefinedOr(Address), {
      decode: SchemaGetter.transformEffect((text: string, options) => {
        if (text === "") return Effect.undefined
        const address = parseAddress(text)
        return Result.isSuccess(address)
          ? Effect.succeed(address.success)
          : Effect.fail(
              new SchemaIssue.InvalidValue({ expected: addressRule(address.failure) }, text, options)
            )
      }),
      encode: SchemaGetter.transform((address: Address | undefined) => address?.text ?? "")
    })
  ),
  (value) => {
    if (typeof value !== "string") return unsure
    if (value === "") return undefined
    const address = parseAddress(value)
    return Result.isSuccess(address) ? address.success : unsure
  }
)

const LabelMap = Schema.declare<ReadonlyMap<string, string>>((value) => value instanceof Map)

/** A Go `map[string]string`. Encoded it is an object; `__proto__` is a key like any other. */
const StringMap = withQuick(
  Schema.declare<Readonly<Record<string, string>>>((_): _ is Readonly<Record<string, string>> => true).pipe(
    Schema.decodeTo(LabelMap, {
      decode: SchemaGetter.transformEffect((input: unknown, options) => {
        const entries = entriesOf(input)
        if (entries === undefined) return notAnObject(input, options)
        const map = new Map<string, string>()
        const issues: Array<SchemaIssue.Issue> = []
        for (const [key, value] of entries) {
          if (typeof value === "string") map.set(key.toWellFormed(), value.toWellFormed())
          else if (value === null) map.set(key.toWellFormed(), "")
          else if (value !== undefined) {
            const issue = new SchemaIssue.InvalidValue({ expected: "a string" }, value, options)
            issues.push(new SchemaIssue.Pointer([key], issue))
          }
        }
        const [first, ...rest] = issues
        return first === undefined
          ? Effect.succeed(map)
          : Effect.fail(new SchemaIssue.Composite(LabelMap.ast, [first, ...rest]))
      }),
      encode: SchemaGetter.transform((map: ReadonlyMap<string, string>) => Object.fromEntries(map))
    })
  ),
  quickStringMap
)

/** A Go pointer: `null` or the value. */
const pointer = <S extends Schema.Constraint>(schema: S, expected: string) => {
  const quick = quickWays.get(schema)
  return withQuick(Schema.Union([Schema.Null, schema]).annotate({ expected }), quick && quickPointer(quick))
}

/** A Go slice; `null` and `[]` are distinct. A struct in it takes `null` for its zero value. */
const slice = <S extends Schema.Constraint>(schema: S) => {
  const quick = quickWays.get(schema)
  const array = Schema.Array(schema).annotate({ expected: "an array" })
  return pointer(withQuick(array, quick && quickArray(quick)), "an array")
}

/** The field types that the protocol's messages use. */
export const int = field(Integer, 0)
export const uint16 = field(Uint16, 0)
export const bool = field(Bool, false)
/** Fields of a draft: optional. */
export const draftBool = field(withQuick(Schema.optionalKey(Bool), quickWays.get(Bool)), undefined)
export const draftUint16 = field(withQuick(Schema.optionalKey(Uint16), quickWays.get(Uint16)), undefined)
export const text = field(Text, "")
export const address = field(OptionalAddress, "")
export const labels = field(pointer(StringMap, "an object"), null, "merge")
export const optionalText = field(pointer(Text, "a string or null"), null)
export const optionalInt = field(pointer(Integer, "an integer or null"), null)
export const optional = <S extends Schema.Constraint>(schema: S) =>
  field(pointer(schema, "an object or null"), null, "merge")
export const list = <S extends Schema.Constraint>(schema: S, max?: number) => ({
  ...field(slice(schema), null, "refuse"),
  max
})

/**
 * Decodes a value, or a tree from `parse`. The error reports everything that is wrong, or only the first issue of a
 * large value.
 */
export const decodeValue = <T>(
  schema: Schema.ConstraintDecoder<T>
): ((input: unknown) => Result.Result<T, RequestError>) => {
  const decode = SchemaParser.decodeUnknownResult(schema)
  const quick = quickWays.get(schema)
  return (input) => {
    const quickly = quick === undefined ? unsure : quick(input)
    if (quickly !== unsure) return Result.succeed(quickly as T)
    const result = decode(input)
    if (Result.isSuccess(result)) return Result.succeed(result.success)
    // Decodes again for the full report, so that valid input doesn't pay for it.
    const errors = isLarge(input) ? "first" : "all"
    const everything = decode(input, { errors, reportInput: true })
    const issues = Result.isFailure(everything) ? issuesOf(everything.failure) : issuesOf(result.failure)
    return Result.fail(new RequestError({ issues }))
  }
}

/** Whether a value has so many parts that a full report would be useless. */
const isLarge = (value: unknown, most = 10_000): boolean => {
  const open = [value]
  for (let looked = 0; open.length > 0; looked++) {
    const next = open.pop()
    const parts = Array.isArray(next) ? next : (entriesOf(next)?.map(([, part]) => part) ?? [])
    if (looked + open.length + parts.length > most) return true
    open.push(...parts)
  }
  return false
}

/** Decodes JSON text. */
export const decodeText = <T>(
  schema: Schema.ConstraintDecoder<T>
): ((text: string) => Result.Result<T, RequestError>) => {
  const decode = decodeValue(schema)
  return (json) => {
    const tree = parse(json)
    return Result.isSuccess(tree) ? decode(tree.success) : Result.fail(unreadable(tree.failure))
  }
}

/** The error for text that is not JSON. */
export const unreadable = (problem: string): RequestError =>
  new RequestError({ issues: [{ path: "", value: "", rule: problem }] })

const addressRule = (reason: string): string =>
  reason === notAnAddress ? anAddress : `${anAddress} (${reason})`

function field<S extends Schema.Constraint>(
  schema: S,
  zero: Field<S>["zero"],
  repeated: Field<S>["repeated"] = "last"
): Field<S> {
  return { schema, zero, repeated }
}

function numberThat(holds: (value: number) => boolean, expected: string) {
  return withQuick(
    Schema.Number.annotate({ expected }).check(Schema.makeFilter(holds, { expected })),
    (value) => (typeof value === "number" && holds(value) ? value : unsure)
  )
}

type Entries = Array<readonly [string, unknown]>

type Fold<A> = (
  input: unknown,
  options: { readonly reportInput?: boolean | undefined }
) => Effect.Effect<A, SchemaIssue.Issue>

/** Assigns the entries of an object to the fields that their keys name. */
const foldInto = <A>(fields: ReadonlyArray<readonly [string, Field<Schema.Constraint>]>): Fold<A> => {
  const places = placesOf(fields.map(([name]) => name))
  const zeros = Object.fromEntries(
    fields.flatMap(([name, { zero }]) => (zero === undefined ? [] : [[name, zero]]))
  )
  const checks = fields.map(([, { schema }]) =>
    SchemaParser.decodeUnknownResult(schema as Schema.ConstraintDecoder<unknown>)
  )
  return (input, options) => {
    const out: Record<string, unknown> = { ...zeros }
    if (input === null) return Effect.succeed(out as A)
    const entries = entriesOf(input)
    if (entries === undefined) return notAnObject(input, options)
    let seen = 0
    const merged = new Map<string, Entries>()
    for (const [key, given] of entries) {
      const place = places(key)
      const found = place === undefined ? undefined : fields[place]
      if (place === undefined || found === undefined || given === undefined) continue
      const [name, { zero, repeated, max }] = found
      let value = given
      const refused = (expected: string) =>
        Effect.fail(
          new SchemaIssue.Pointer([name], new SchemaIssue.InvalidValue({ expected }, value, options))
        )
      if (isLongerThan(max, value)) return refused(`at most ${max} elements`)
      if ((seen & (1 << place)) !== 0) {
        if (repeated === "refuse") return refused("given once")
        const before = repeated === "merge" ? entriesOf(out[name]) : undefined
        const after = repeated === "merge" ? entriesOf(value) : undefined
        if (before !== undefined && after !== undefined) {
          // Appends in place, so that a key repeated a thousand times costs linear time.
          const together = before === merged.get(name) ? (before as Entries) : [...before]
          merged.set(name, together)
          for (const entry of after) together.push(entry)
          value = new JsonObject(together as JsonObject["entries"])
        } else {
          const earlier = checks[place]?.(out[name], options)
          if (earlier !== undefined && Result.isFailure(earlier)) {
            return Effect.fail(new SchemaIssue.Pointer([name], earlier.failure))
          }
        }
      }
      seen |= 1 << place
      if (value !== null || zero === null) out[name] = value
    }
    return Effect.succeed(out as A)
  }
}

const notAnObject = (input: unknown, options: Parameters<Fold<never>>[1]) =>
  Effect.fail(new SchemaIssue.InvalidValue({ expected: "an object" }, input, options))

/** The leaves of a schema issue, each with its path, value and rule. */
const issuesOf = (issue: SchemaIssue.Issue, path = "", expected = "something else"): ReadonlyArray<Issue> => {
  switch (issue._tag) {
    case "Pointer":
      return issuesOf(issue.issue, issue.path.reduce<string>(pathText, path), expected)
    case "Composite":
      return issue.issues.flatMap((inner) => issuesOf(inner, path, expected))
    case "Encoding":
      return issuesOf(issue.issue, path, expected)
    case "AnyOf": {
      // A union here is `null` or one type: report what is wrong with that type.
      const inner = issue.issues.at(-1)
      if (inner !== undefined) return issuesOf(inner, path, expected)
      break
    }
    case "Filter":
      return [leaf(path, issue, expectedOf(issue.filter.annotations) ?? expected)]
  }
  const annotations =
    "annotations" in issue ? issue.annotations : "ast" in issue ? issue.ast.annotations : undefined
  return [leaf(path, issue, expectedOf(annotations) ?? expected)]
}

const leaf = (path: string, issue: SchemaIssue.Issue, rule: string): Issue => ({
  path,
  value: SchemaIssue.hasInput(issue) ? preview(issue.input) : "",
  rule
})

const expectedOf = (annotations: object | undefined): string | undefined =>
  annotations !== undefined && "expected" in annotations && typeof annotations.expected === "string"
    ? annotations.expected
    : undefined

/** `Reqs`, `[1]`, `.FrontendPort`; a key that is not an identifier is quoted: `Labels["a.b"]`. */
const pathText = (path: string, key: PropertyKey): string => {
  if (typeof key === "number") return `${path}[${key}]`
  const name = String(key)
  if (!/^[A-Za-z_]\w*$/.test(name)) return `${path}[${preview(name)}]`
  return path === "" ? name : `${path}.${name}`
}

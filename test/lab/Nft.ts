/**
 * Reads a namespace's nftables from `nft -j`. Elements become one line of text each, sorted, so that a test
 * compares whole maps: `tcp . 8080 : 172.31.0.2 . 80`.
 */
import { Effect } from "effect"
import type { Namespace } from "./Namespace.ts"
import type { LabError } from "./Process.ts"

export const ourTable = "inet portmapper"

type Json = Readonly<Record<string, unknown>>

/** Every table of the namespace, as `inet portmapper`, sorted. */
export const tables = (namespace: Namespace): Effect.Effect<ReadonlyArray<string>, LabError> =>
  Effect.map(namespace.check("nft", ["list", "tables"]), (text) =>
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => line.replace(/^table /, ""))
      .sort()
  )

/** The elements of every map and set that has any, by its name. Without the table: `{}`. */
export const contents = (
  namespace: Namespace,
  table = ourTable
): Effect.Effect<Readonly<Record<string, ReadonlyArray<string>>>, LabError> =>
  Effect.map(collections(namespace, table), (found) =>
    Object.fromEntries(
      found
        .filter((collection) => collection.elements.length > 0)
        .map(({ name, elements }) => [name, [...elements].sort()])
    )
  )

/** The elements of one map or set, sorted. */
export const elements = (
  namespace: Namespace,
  name: string
): Effect.Effect<ReadonlyArray<string>, LabError> =>
  Effect.map(collections(namespace, ourTable), (found) =>
    found.flatMap((one) => (one.name === name ? one.elements : [])).sort()
  )

/**
 * Listed one by one: nft 1.0.6 prints no JSON of a table with exactly one flag, such as an owned table whose owner has
 * ended (a use after free).
 */
const collections = Effect.fnUntraced(function* (namespace: Namespace, table: string) {
  const all = yield* namespace.sh("nft -j list maps; nft -j list sets")
  const names = collectionsIn(all)
    .filter(({ family, of }) => `${family} ${of}` === table)
    .map(({ kind, name }) => `nft -j list ${kind} ${table} ${name}`)
  if (names.length === 0) return []
  return collectionsIn(yield* namespace.sh(names.join("\n")))
})

const collectionsIn = (text: string) =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .flatMap((line) => (JSON.parse(line) as { readonly nftables: ReadonlyArray<Json> }).nftables)
    .flatMap((object) => {
      const kind = "map" in object ? "map" : "set"
      const found = object[kind] as Json | undefined
      if (found === undefined) return []
      const types = [found["type"]].flat() as ReadonlyArray<string>
      const elements = ((found["elem"] ?? []) as ReadonlyArray<unknown>).map((element) =>
        parse(element, types)
      )
      return [{ kind, family: found["family"], of: found["table"], name: String(found["name"]), elements }]
    })

/** A set's element is its key, a map's a pair of key and value; either part may be wrapped with its attributes. */
const parse = (element: unknown, types: ReadonlyArray<string>): string => {
  const [key, value] = Array.isArray(element) ? (element as [unknown, unknown]) : [element, undefined]
  const text = show(isObject(key) && isObject(key["elem"]) ? key["elem"]["val"] : key, types)
  return value === undefined ? text : `${text} : ${show(value, [])}`
}

const show = (value: unknown, types: ReadonlyArray<string>): string => {
  if (!isObject(value))
    return types[0] === "inet_proto" ? (protocols[String(value)] ?? String(value)) : String(value)
  const { concat, prefix, range } = value
  if (Array.isArray(concat))
    return concat.map((part, index) => show(part, types.slice(index, index + 1))).join(" . ")
  if (isObject(prefix)) return `${prefix["addr"]}/${prefix["len"]}`
  if (Array.isArray(range)) return range.join("-")
  return JSON.stringify(value)
}

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null

/** nft prints a number where the machine has no `/etc/protocols`. */
const protocols: Readonly<Record<string, string>> = { "6": "tcp", "17": "udp", "132": "sctp" }

/**
 * Reads a namespace's nftables from `nft -j`. Elements become one line of text each, sorted, so that a test
 * compares whole maps: `tcp . 8080 : 172.31.0.2 . 80`.
 */
import { Effect } from "effect"
import type { Namespace } from "./Namespace.ts"
import { LabError } from "./Process.ts"

export const ourTable = "inet portmapper"

type Json = Readonly<Record<string, unknown>>

export interface Counter {
  readonly packets: number
  readonly bytes: number
}

/** The objects of a table, in nft's own JSON; `undefined` where the table does not exist. */
export const ruleset = (
  namespace: Namespace,
  table = ourTable
): Effect.Effect<ReadonlyArray<Json> | undefined, LabError> =>
  Effect.flatMap(namespace.exec("nft", ["-j", "list", "table", ...table.split(" ")]), (output) => {
    if (output.code === 0)
      return Effect.succeed((JSON.parse(output.stdout) as { nftables: ReadonlyArray<Json> }).nftables)
    if (output.stderr.includes("No such file or directory")) return Effect.succeed(undefined)
    return Effect.fail(new LabError({ operation: `nft list table ${table}`, detail: output.stderr.trim() }))
  })

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
        .map(({ name, elements }) => [name, elements.map(({ text }) => text).sort()])
    )
  )

/** The elements of one map or set, sorted. Fails where there is none of that name. */
export const elements = (
  namespace: Namespace,
  name: string,
  table = ourTable
): Effect.Effect<ReadonlyArray<string>, LabError> =>
  Effect.map(named(namespace, name, table), (found) => found.map(({ text }) => text).sort())

/** The counters of a map's or set's elements, by the element's text. */
export const counters = (
  namespace: Namespace,
  name: string,
  table = ourTable
): Effect.Effect<Readonly<Record<string, Counter>>, LabError> =>
  Effect.map(named(namespace, name, table), (found) =>
    Object.fromEntries(
      found.flatMap(({ text, counter }) => (counter === undefined ? [] : [[text, counter] as const]))
    )
  )

interface Element {
  readonly text: string
  readonly counter?: Counter
}

const named = (namespace: Namespace, name: string, table: string) =>
  Effect.flatMap(collections(namespace, table), (found) => {
    const collection = found.find((one) => one.name === name)
    if (collection !== undefined) return Effect.succeed(collection.elements)
    const there = found.map((one) => one.name).join(", ")
    return Effect.fail(
      new LabError({
        operation: `elements of ${name} in ${table}`,
        detail: `no such map or set, only: ${there}`
      })
    )
  })

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
const parse = (element: unknown, types: ReadonlyArray<string>): Element => {
  const [key, value] = Array.isArray(element) ? (element as [unknown, unknown]) : [element, undefined]
  const { val, counter } =
    isObject(key) && isObject(key["elem"]) ? key["elem"] : { val: key, counter: undefined }
  const text = value === undefined ? show(val, types) : `${show(val, types)} : ${show(value, [])}`
  return isObject(counter) ? { text, counter: counter as unknown as Counter } : { text }
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

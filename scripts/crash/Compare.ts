/**
 * Compares what was answered with everything observable of the plugin: its own list, its record, the kernel's
 * table, its sockets, and the backend that answers at each of its ports.
 */
import { join } from "node:path"
import { Effect } from "effect"
import type { Lab } from "../../test/lab/Lab.ts"
import { contents } from "../../test/lab/Nft.ts"
import type { Plugin } from "../../test/lab/Plugin.ts"
import { listening } from "../../test/lab/Probe.ts"
import {
  type Binding,
  bindingKey,
  doubled,
  isBeside,
  isDrained,
  isNoStandby,
  keyOf,
  type Ledger,
  type Listed,
  sharedPort,
  textOf
} from "./Ledger.ts"
import { type Recorded, recorded } from "./Record.ts"
import { traffic } from "./Traffic.ts"

/** Texts of differences, each of them a fault. */
export interface Differences {
  /** Answered, but missing or incomplete. */
  readonly lost: ReadonlyArray<string>
  /** Present, but twice, or without a mapping that it belongs to. */
  readonly doubled: ReadonlyArray<string>
}

export const list = (plugin: Plugin) =>
  Effect.map(
    plugin.call("ListPorts", {}),
    ({ body }) => (JSON.parse(body) as { readonly Mappings: ReadonlyArray<Listed> }).Mappings
  )

/** Call while no request is in flight; `listed` is the plugin's own list. */
export const differences = Effect.fnUntraced(function* (
  lab: Lab,
  plugin: Plugin,
  ledger: Ledger,
  listed: ReadonlyArray<Listed>
) {
  const serving = listed.filter((one) => isNoStandby(one) && one.State !== "conflicted")
  const seen = [
    differ(
      "the table",
      without(redirections(yield* contents(lab.host)), serving.filter(isDrained).map(hairpinOf)),
      serving.flatMap((one) => (isDrained(one) ? [] : elementsOf(one)))
    ),
    differ("what is bound", yield* listening(lab.host, { pid: plugin.process.pid }), serving.map(keyOf)),
    differRecord(recorded(join(plugin.folder, "state")), listed)
  ]
  // A backend that no answer named serves beside the others of a shared port until `claim` unmaps it, and checks them.
  const shared = ledger.unanswered(listed).filter(({ FrontendPort }) => FrontendPort === sharedPort)
  const alone = [...ledger.answered.values()].filter((one) => !isBeside(one, shared))
  const unserved = yield* traffic(lab, alone, (one) => ledger.drained.has(bindingKey(one)))
  // The reason, if the plugin knows it.
  const warnings = plugin.process.lines("stderr").filter((line) => /level=(WARN|ERROR)/.test(line))
  return {
    lost: [
      ...ledger.lost(listed),
      ...seen.flatMap(({ lacking }) => lacking),
      ...unserved.map((text) => [text, ...warnings].join("\n  "))
    ],
    doubled: [...doubled(listed), ...seen.flatMap(({ beyond }) => beyond)]
  } satisfies Differences
})

/** The elements that redirect, those of a service once for each of its backends; what leaves out a slot is shown. */
const redirections = (table: Readonly<Record<string, ReadonlyArray<string>>>): ReadonlyArray<string> => {
  const inMaps = (names: RegExp) =>
    Object.entries(table).flatMap(([name, elements]) => (names.test(name) ? elements : []))
  const slots = Object.entries(table).flatMap(([name, elements]) =>
    /^(random|source)\d/.test(name) ? elements.map((text) => [name, text.replace(/ \. \d+ : /, " : ")]) : []
  )
  const gaps = [...Map.groupBy(slots, ([name, text]) => `${name} ${text?.split(" : ")[0]}`)].flatMap(
    ([frontend, { length }]) => (length === 64 ? [] : [`${frontend} with ${length} slots`])
  )
  return [
    ...inMaps(/^(any|addr|hairpin_any|hairpin_addr)\d/),
    ...new Set(slots.flatMap(([, text]) => text ?? [])),
    ...gaps
  ]
}

const differ = (what: string, found: ReadonlyArray<string>, wanted: ReadonlyArray<string>) => ({
  lacking: without(wanted, found).map((text) => `${what} lacks ${text}`),
  beyond: without(found, wanted).map((text) => `${what} has ${text}`)
})

/** A live mapping is recorded as answered, an unconfirmed one as applied, and none is left half done. */
const differRecord = (found: ReadonlyArray<Recorded>, listed: ReadonlyArray<Listed>) => {
  const states = new Map(found.map(({ text, state }) => [text, state]))
  return differ(
    "the record",
    found.map(({ text, state }) => `${text} ${state}`),
    listed.map((one) => {
      const was = states.get(textOf(one)) === "applied" ? "applied" : "answered"
      const state = { live: "answered", drained: "answered", unconfirmed: "applied" }[one.State] ?? was
      return `${textOf(one)} ${state}`
    })
  )
}

/** The redirection, and what leads the backend's own packets to the socket. */
const elementsOf = (binding: Binding): ReadonlyArray<string> => [
  `${elementAt(binding)} : ${binding.BackendIP} . ${binding.BackendPort}`,
  hairpinOf(binding)
]

const hairpinOf = (binding: Binding): string => `${elementAt(binding)} . ${binding.BackendIP}`

const elementAt = ({ Proto, FrontendIP, FrontendPort }: Binding): string => {
  const any = FrontendIP === "0.0.0.0" || FrontendIP === "::"
  return `${any ? "" : `${FrontendIP} . `}${Proto === 6 ? "tcp" : "udp"} . ${FrontendPort}`
}

const without = (texts: ReadonlyArray<string>, others: ReadonlyArray<string>) => {
  const known = new Set(others)
  return texts.filter((text) => !known.has(text))
}

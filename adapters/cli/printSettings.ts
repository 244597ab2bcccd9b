/** What `serve --print-settings` prints: a row for each setting, then the variables that are none. */
import { defaultEngine } from "../engine/EngineAddress.ts"
import { defaultTexts as clusterTexts } from "./clusterFlags.ts"
import { defaultTexts, socketOf, stateOf } from "./options.ts"
import { type Source, unknownVariables } from "./settings.ts"
import { printable, tableLines } from "./Table.ts"

type Options = Parameters<typeof stateOf>[0] & { readonly tcp: { readonly _tag: "None" | "Some" } }

export const settingsText = (
  sources: ReadonlyArray<Source>,
  options: Options,
  env: Readonly<Record<string, string | undefined>>
): string => {
  const rows = sources.map((source) => inForce(source, options, env))
  const column = (header: string, index: 0 | 1 | 2) => ({
    header,
    cells: rows.map((row) => printable(row[index]))
  })
  const lines = tableLines(
    [column("SETTING", 0), column("VALUE", 1), column("FROM", 2)],
    Number.POSITIVE_INFINITY
  )
  const unknown = unknownVariables(sources, env)
  return [...lines, ...unknown.map((name) => `${printable(name)} is no setting of serve`)].join("\n")
}

const inForce = (
  { key, option, text, from }: Source,
  options: Options,
  env: Readonly<Record<string, string | undefined>>
): readonly [string, string, string] => {
  if (text !== undefined) return [option, text, from]
  const engine = env["DOCKER_HOST"] || undefined
  if (option === "engine")
    return [option, engine ?? defaultEngine, engine === undefined ? from : "DOCKER_HOST"]
  const listensOnTcp = options.tcp._tag === "Some"
  const computed: Readonly<Record<string, string | undefined>> = {
    ...defaultTexts,
    ...clusterTexts,
    socket: listensOnTcp || env["LISTEN_FDS"] !== undefined ? undefined : socketOf(options),
    state: stateOf(options),
    specDir: listensOnTcp ? defaultTexts.specDir : undefined
  }
  // A name, a choice and a toggle have their default in the option itself.
  const parsed = (options as unknown as Readonly<Record<string, unknown>>)[key]
  const value = computed[key] ?? (["string", "boolean"].includes(typeof parsed) ? String(parsed) : "-")
  return [option, value, from]
}

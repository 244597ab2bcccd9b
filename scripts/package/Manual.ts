/** Generates manual pages, one per command, and tables of options, from the same tree as `--help`. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer } from "effect"
import { CliConfig, CliOutput, Command, type HelpDoc } from "effect/cli"
import { builtIns } from "../../adapters/cli/completions.ts"
import { type Row, rowsOf, synopsisOf } from "../../adapters/cli/presenter.ts"
import { portmapper } from "../../adapters/cli/tree.ts"

export interface Page {
  /** `portmapper-map.1` */
  readonly file: string
  readonly text: string
}

/** `date` is that of the release, `YYYY-MM-DD`. */
export const manualPages = (version: string, date: string): Promise<ReadonlyArray<Page>> =>
  Effect.runPromise(
    Effect.map(docsOf(version, []), (docs) => docs.map((doc) => pageOf(doc, version, date, docs)))
  )

/** `docs/OPTIONS.md` */
export const optionTables = async (): Promise<string> => {
  const docs = await Effect.runPromise(docsOf("", []))
  const [{ doc }] = docs as [Documented]
  return [
    optionsHead,
    ...docs.map(({ path, doc }) => {
      const { options } = rowsOf(doc)
      return options.length === 0 ? "" : `\n## ${path.join(" ")}\n\n${doc.description}.\n\n${table(options)}`
    }),
    `\n## Every command\n\n${table(rowsOf(doc).globals)}`
  ].join("")
}

const optionsHead = `# Options

Of each command, as its \`--help\` and its manual page have them; in brackets is the variable that gives an option, too. Written by
\`npx vitest run test/package -u\`; the tests fail where it is out of date.
`

/** In the form of the formatter: columns as wide as their widest cell. */
const table = (rows: ReadonlyArray<Row>): string => {
  const cells = [
    ["option", "does"],
    ...rows.map(([name, description]) => [
      `\`${name.trim().replaceAll("|", "\\|")}\``,
      description.replaceAll("|", "\\|").replaceAll(/<([^>]*)>/g, "\\<$1>")
    ])
  ]
  const widths = [0, 1].map((column) => Math.max(...cells.map((row) => (row[column] ?? "").length)))
  const line = (row: ReadonlyArray<string>) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`
  const [head = [], ...body] = cells
  return `${[line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n")}\n`
}

interface Documented {
  readonly path: ReadonlyArray<string>
  readonly doc: HelpDoc.HelpDoc
}

/** A command's help, then that of its subcommands. */
const docsOf = (version: string, path: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Documented>> =>
  Effect.gen(function* () {
    const found: Array<HelpDoc.HelpDoc> = []
    const presenter: CliOutput.Presenter = {
      present: (event) => Effect.sync(() => void (event._tag === "Help" && found.push(event.helpDoc)))
    }
    yield* Command.runWith(portmapper, { version })([...path, "--help"]).pipe(
      Effect.provide(
        Layer.mergeAll(CliConfig.layer({ builtIns }), CliOutput.layerPresenter(presenter), NodeServices.layer)
      ),
      Effect.orDie
    )
    const [doc] = found
    if (doc === undefined) return yield* Effect.die(new Error(`no help of ${path.join(" ")}`))
    const names = (doc.subcommands ?? []).flatMap(({ commands }) => commands.map(({ name }) => name))
    const below = yield* Effect.forEach(names, (name) => docsOf(version, [...path, name]))
    return [{ path: ["portmapper", ...path], doc }, ...below.flat()]
  })

const pageOf = (
  { path, doc }: Documented,
  version: string,
  date: string,
  all: ReadonlyArray<Documented>
): Page => {
  const name = path.join("-")
  const { commands, options, globals } = rowsOf(doc)
  const also = all.flatMap((other) =>
    other.path === path ? [] : [`.BR ${escaped(other.path.join("-"))} (1)`]
  )
  const lines = [
    `.TH ${quoted(name.toUpperCase())} 1 ${quoted(date)} ${quoted(`portmapper ${version}`)} "User Commands"`,
    ".SH NAME",
    `${escaped(name)} \\- ${escaped(firstLower(doc.description.split(/[.;:] /)[0] ?? ""))}`,
    ".SH SYNOPSIS",
    escaped(synopsisOf(doc)),
    ".SH DESCRIPTION",
    `${escaped(doc.description)}.`,
    ...section("COMMANDS", commands),
    ...section("OPTIONS", options),
    ...section("EVERYWHERE", globals),
    ...((doc.examples ?? []).length === 0 ? [] : [".SH EXAMPLES"]),
    ...(doc.examples ?? []).flatMap(({ command, description }) => [
      ".TP",
      `\\fB${escaped(command)}\\fR`,
      description === undefined ? "\\&" : escaped(description)
    ]),
    ".SH EXIT STATUS",
    "0 done, 1 refused or failed (one line on standard error), 2 wrong usage.",
    ".SH SEE ALSO",
    ...also.map((line, index) => (index < also.length - 1 ? `${line},` : line))
  ]
  return { file: `${name}.1`, text: `${lines.join("\n")}\n` }
}

const section = (title: string, rows: ReadonlyArray<Row>): ReadonlyArray<string> =>
  rows.length === 0
    ? []
    : [
        `.SH ${title}`,
        ...rows.flatMap(([name, description]) => [
          ".TP",
          `\\fB${escaped(name.trim())}\\fR`,
          description === "" ? "\\&" : escaped(description)
        ])
      ]

const firstLower = (text: string): string => text.slice(0, 1).toLowerCase() + text.slice(1)

const quoted = (text: string): string => `"${escaped(text)}"`

/** Escapes hyphens, as options need them, and lines that begin like a roff request. */
const escaped = (text: string): string =>
  text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^(?=[.'])/gm, "\\&")

/** What the parser prints: help that fits the terminal, the version, and wrong usage on one line. */
import { Console, Context, Option } from "effect"
import type { CliError, CliOutput, HelpDoc } from "effect/cli"
import { isVariable, Settable, variableOf } from "./settings.ts"
import { printable } from "./Table.ts"

/** Requested help goes to stdout; help shown for wrong usage goes to stderr, with exit status 2. */
export const presenter: CliOutput.Presenter = {
  present: (event) => {
    switch (event._tag) {
      case "Help":
        return event.reason === "Requested"
          ? Console.log(helpText(event.helpDoc, helpWidth(process.stdout)))
          : Console.error(helpText(event.helpDoc, helpWidth(process.stderr)))
      case "InvalidInvocation":
        return Console.error(
          `portmapper: ${usageText(event.commandPath, event.errors.map((error) => problem(error, event.commandPath)).join("; "))}`
        )
      case "Version":
        return Console.log(`${event.name} ${event.version}`)
    }
  }
}

/** `map: --to is missing; see: portmapper map --help` */
export const usageText = (commandPath: ReadonlyArray<string>, what: string): string => {
  const command = commandPath.slice(1).join(" ")
  return `${command === "" ? "" : `${command}: `}${what}; see: ${commandPath.join(" ")} --help`
}

/** One thing wrong with a command line. `--publish` is known to everyone as `-p`. */
const problem = (error: CliError.NonShowHelpErrors, commandPath: ReadonlyArray<string>): string => {
  switch (error._tag) {
    case "UnrecognizedOption":
      return `${error.option} is no option of ${commandPath.join(" ")}${didYouMean(error.suggestions)}`
    case "UnknownSubcommand":
      return `${quoted(error.subcommand)} is no command${didYouMean(error.suggestions)}`
    case "MissingOption":
      return `${optionText(error.option)} is missing`
    case "MissingArgument":
      return `${error.argument} is missing`
    case "UnexpectedArgument":
      return `${error.arguments.map(quoted).join(", ")} is not expected here`
    case "InvalidValue":
      return error.value === ""
        ? `${optionText(error.option)} is missing its value`
        : `${optionText(error.option)} ${quoted(error.value)}: ${expectation(error.expected)}`
    default:
      return printable(error.message.replaceAll(/\s*\n\s*/g, " "))
  }
}

/** The names of variables stand for themselves. */
const optionText = (name: string): string =>
  name === "publish" ? "-p" : isVariable(name) ? name : `--${name}`

const quoted = (text: string): string => `"${printable(text)}"`

/** The parser's own message names a type, or lists everything that it reads as a truth value. */
const expectation = (text: string): string => {
  const choices = text.replace(/^expected (?=")/i, "")
  if (!/^"\w+"( \| "\w+")+$/.test(choices))
    return printable(
      text.replace(/^Expected:?/, "expected").replace("a string representing a finite number", "a number")
    )
  return choices.startsWith('"true" | "yes"')
    ? "expected true or false"
    : `expected one of ${choices.replaceAll('"', "").replaceAll(" | ", ", ")}`
}

const didYouMean = (suggestions: ReadonlyArray<string>): string =>
  suggestions.length === 0 ? "" : `, did you mean ${suggestions.join(" or ")}?`

const helpWidth = (stream: { readonly columns?: number }): number =>
  Math.min(100, Math.max(60, stream.columns ?? 80))

/** The rows of a command's help, which its manual page uses, too; an option's row ends with its variable. */
export const rowsOf = (doc: HelpDoc.HelpDoc) => {
  const settable = Context.get(doc.annotations, Settable)
  const withVariable = (name: string, [left, text]: Row): Row => [
    left,
    settable.has(name) ? `${text} [${variableOf(name)}]` : text
  ]
  return {
    commands: (doc.subcommands ?? []).flatMap(({ commands }) =>
      commands.map(({ name, description, shortDescription }): Row => [name, shortDescription ?? description])
    ),
    options: [...doc.flags, ...(doc.inheritedFlags ?? [])].map((flag) =>
      withVariable(flag.name, flagRow(flag))
    ),
    globals: (doc.globalFlags ?? []).map((flag) =>
      withVariable(flag.name, globalRows.get(flag.name) ?? flagRow(flag))
    )
  }
}

/** `Usage:` as people write it. */
export const synopsisOf = ({ usage }: HelpDoc.HelpDoc): string =>
  usage.replace("[flags]", "[options]").replace("<subcommand>", "COMMAND")

/** Descriptions are wrapped in a column of their own, below the name where that is long. */
const helpText = (doc: HelpDoc.HelpDoc, width: number): string => {
  const { commands, options, globals } = rowsOf(doc)
  const sections = [
    [`Usage: ${synopsisOf(doc)}`],
    wrapped(doc.description, width),
    section("Commands", commands, width),
    section("Options", options, width),
    section("Everywhere", globals, width),
    doc.examples === undefined || doc.examples.length === 0
      ? []
      : [
          "Examples:",
          ...doc.examples.flatMap(({ command, description }) => exampleLines(command, description, width))
        ]
  ]
  return sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n")
}

export type Row = readonly [name: string, description: string]

/** The options of every command, described more briefly than by the parser. */
export const globalRows = new Map<string, Row>([
  ["completions", ["--completions SHELL", "Print a completion script for bash, zsh, fish or powershell"]],
  ["log-level", ["--log-level LEVEL", "Log from this level on: debug, info, warn, error or none"]],
  ["help", ["-h, --help", "Print this help"]],
  ["version", ["--version", "Print the version"]]
])

const flagRow = (flag: HelpDoc.FlagDoc): Row => {
  const short = flag.aliases.filter((alias) => /^-[^-]$/.test(alias))
  const description = Option.getOrElse(flag.description, () => "")
  const choices = / ?\(choices: ([^)]*)\)$/.exec(description)
  const metavar =
    flag.type === "boolean"
      ? ""
      : ` ${choices?.[1] === undefined ? flag.type : choices[1].replaceAll(", ", "|")}`
  return [
    `${short.length === 0 ? "    " : `${short.join(", ")}, `}--${flag.name}${metavar}`,
    choices === null ? description : description.slice(0, choices.index)
  ]
}

const section = (title: string, rows: ReadonlyArray<Row>, width: number): ReadonlyArray<string> => {
  if (rows.length === 0) return []
  const column = 2 + Math.min(26, Math.max(...rows.map(([name]) => name.length)) + 2)
  return [
    `${title}:`,
    ...rows.flatMap(([name, description]) => {
      const lines = wrapped(description, width - column).map((line) => `${" ".repeat(column)}${line}`)
      const first = lines[0]?.trimStart() ?? ""
      return 2 + name.length + 2 <= column
        ? [`  ${name.padEnd(column - 2)}${first}`.trimEnd(), ...lines.slice(1)]
        : [`  ${name}`, ...lines]
    })
  ]
}

const exampleLines = (command: string, description: string | undefined, width: number) => [
  ...wrapped(description ?? "", width - 4).map((line) => `  # ${line}`),
  `  ${command}`
]

const wrapped = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  for (const word of text.split(/\s+/).filter((word) => word !== "")) {
    const line = lines.at(-1)
    if (line === undefined || line.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines
}

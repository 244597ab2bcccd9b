/**
 * Completion scripts from the tree of commands: the parser's, and the values that only the host knows, which the shell
 * asks for when it completes.
 */
import { Console, Effect, Option } from "effect"
import { Completions, GlobalFlag } from "effect/cli"
import { globalRows } from "./presenter.ts"

/** What is mapped: what follows an interface as it was asked for, once for all addresses; else its frontend. */
const mapped =
  'portmapper ls 2>/dev/null | sed -nE -e "s/.*portmapper[.]publish=([0-9.-]*[A-Za-z_][^, ]*).*/\\1/p;t" -e "s/^([^ ]+[/](tcp|udp|sctp)) .*/\\1/p" | sort -u'

/**
 * Prints the values of an option, by command and option. In single quotes and after a colon zsh reads it twice, so it
 * has neither.
 */
const live: Readonly<Record<string, string>> = {
  "map to": 'docker ps --format "{{.Names}}" 2>/dev/null',
  "unmap to": 'docker ps --format "{{.Names}}" 2>/dev/null',
  ...Object.fromEntries(["unmap", "drain", "undrain"].map((command) => [`${command} publish`, mapped]))
}

/** How the parser's script has one choice, and what runs a command in its place; PowerShell's has none. */
const inPlace = {
  bash: (choice: string, command: string) => [`'${choice}'`, `$(${command})`],
  zsh: (choice: string, command: string) => [`(${choice})`, `($(${command}))`],
  fish: (choice: string, command: string) => [`'${choice}'`, `'(${command})'`]
} as const

export const completionScript = (
  shell: Completions.Shell,
  command: Parameters<typeof Completions.fromCommand>[0]
): string => {
  const descriptor = completed(Completions.fromCommand(command), shell === "powershell" ? {} : live)
  const script = Completions.generate(command.name, shell, descriptor)
  if (shell === "powershell") return script
  return Object.entries(live).reduce((text, [key, asking]) => {
    const [choice = "", by = ""] = inPlace[shell](choiceOf(key), asking)
    return text.replaceAll(choice, () => by)
  }, script)
}

/** Of characters that no shell's script escapes. */
const choiceOf = (key: string): string => `@${key.replace(" ", "/")}@`

/** With the options of every command, and a choice to be replaced for each option with values of the host. */
const completed = (
  command: Completions.CommandDescriptor,
  values: Readonly<Record<string, string>>
): Completions.CommandDescriptor => ({
  ...command,
  flags: [
    ...command.flags.map((flag) => {
      const key = `${command.name} ${flag.name}`
      return Object.hasOwn(values, key)
        ? { ...flag, type: { _tag: "Choice" as const, values: [choiceOf(key)] } }
        : flag
    }),
    ...globals
  ],
  subcommands: command.subcommands.map((each) => completed(each, values))
})

const global = (
  name: string,
  values: ReadonlyArray<string>,
  aliases: ReadonlyArray<string> = []
): Completions.FlagDescriptor => ({
  name,
  aliases,
  description: globalRows.get(name)?.[1],
  type: values.length === 0 ? { _tag: "Boolean" } : { _tag: "Choice", values },
  negation: false
})

const globals = [
  global("completions", ["bash", "zsh", "fish", "powershell"]),
  global("log-level", ["debug", "info", "warn", "error", "none"]),
  global("help", [], ["h"]),
  global("version", [])
]

/** Every built-in option of the parser but `--wizard`. */
export const builtIns: ReadonlyArray<GlobalFlag.BuiltIn> = [
  GlobalFlag.Help,
  GlobalFlag.Version,
  {
    ...GlobalFlag.Completions,
    run: (shell: Option.Option<Completions.Shell>, { command }: GlobalFlag.HandlerContext) =>
      Option.isNone(shell) ? Effect.void : Console.log(completionScript(shell.value, command))
  },
  GlobalFlag.LogLevel
]

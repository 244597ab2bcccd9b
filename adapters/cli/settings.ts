/**
 * Options that variables give, too: `--udp-idle` is also `PORTMAPPER_UDP_IDLE`, under the same rule. An option wins; an
 * empty variable is none.
 */
import { Config, Context, Effect, identity, Option } from "effect"
import { CliError, Command, Flag, GlobalFlag, type Param } from "effect/cli"
import { toggle } from "./flags.ts"

const prefix = "PORTMAPPER_"

export const variableOf = (option: string): string => `${prefix}${option.toUpperCase().replaceAll("-", "_")}`

/** Whether an error is about a variable instead of an option. */
export const isVariable = (name: string): boolean => name.startsWith(prefix)

/** The names of a command's options that are settings, for its help. */
export const Settable = Context.Reference<ReadonlySet<string>>("portmapper/cli/Settable", {
  defaultValue: () => new Set()
})

type Flags = Readonly<Record<string, Flag.Flag<unknown>>>

/** The key in a command's flags is the option's name in camel case. */
const nameOf = (key: string): string => key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

/** Those of these options that are given, as they are written. */
export const givenOf = <Name extends string>(
  options: { readonly [Key in Name]: Option.Option<unknown> },
  ...names: ReadonlyArray<Name>
): ReadonlyArray<string> =>
  names.filter((name) => Option.isSome(options[name])).map((name) => `--${nameOf(name)}`)

/** The level also as a variable; `--log-level` itself is an option of every command. */
const logLevel = Flag.withHidden(GlobalFlag.LogLevel.flag)

/** A command's flags, each of them also a variable, and the log level. */
export const settings = <F extends Flags>(flags: F): F & { readonly logLevel: typeof logLevel } => {
  const all: Flags = { ...flags, logLevel }
  const entries = Object.entries(all).map(([key, flag]) => [key, withVariable(key, flag)])
  return Object.fromEntries(entries)
}

/** Marks a command that is made from `settings` of these flags. */
export const haveVariables = (flags: Flags) =>
  Command.annotate(Settable, new Set(Object.keys({ ...flags, logLevel }).map(nameOf)))

/** Where a value comes from: the command line, the variable of this name, or neither. */
export interface Source {
  /** In the command's flags. */
  readonly key: string
  readonly option: string
  readonly text: string | undefined
  readonly from: "option" | "default" | `${typeof prefix}${string}`
}

/** `--print-settings`: the source of each of these settings, or `undefined` if the option was not given. */
export const printSettings = (flags: Flags): Flag.Flag<ReadonlyArray<Source> | undefined> => {
  const keys = Object.keys({ ...flags, logLevel })
  return parsedAs(
    toggle(
      "print-settings",
      "Print each setting in force and whether an option, a variable or the default gives it"
    ),
    (parse) => (args) =>
      Effect.flatMap(parse(args), ([rest, isAsked]) =>
        Effect.map(
          isAsked ? Effect.forEach(keys, (key) => sourceOf(key, args)) : Effect.succeed(undefined),
          (sources) => [rest, sources] as const
        )
      )
  )
}

/** Variables that look like settings but are none of these, such as misspelled ones. */
export const unknownVariables = (
  sources: ReadonlyArray<Source>,
  env: Readonly<Record<string, string | undefined>>
): ReadonlyArray<string> => {
  const known = new Set(sources.map(({ option }) => variableOf(option)))
  return Object.keys(env).filter((name) => isVariable(name) && !known.has(name))
}

const withVariable = <A>(key: string, flag: Flag.Flag<A>): Flag.Flag<A> =>
  parsedAs(
    flag,
    (parse) => (args) =>
      Effect.flatMap(sourceOf(key, args), ({ option, text, from }) =>
        text === undefined || from === "option"
          ? parse(args)
          : Effect.mapError(parse({ ...args, flags: { ...args.flags, [option]: [text] } }), (error) =>
              error._tag === "InvalidValue"
                ? new CliError.InvalidValue({
                    option: from,
                    value: text,
                    expected: error.expected,
                    kind: "flag"
                  })
                : error
            )
      )
  )

const sourceOf = (key: string, { flags }: Param.ParsedArgs): Effect.Effect<Source> => {
  const option = nameOf(key)
  const given = flags[option]?.at(-1)
  if (given !== undefined) return Effect.succeed({ key, option, text: given, from: "option" })
  const variable = variableOf(option)
  return Effect.map(Effect.orDie(Config.option(Config.String(variable))), (text) =>
    Option.isNone(text)
      ? { key, option, text: undefined, from: "default" }
      : { key, option, text: text.value, from: variable as `${typeof prefix}${string}` }
  )
}

/** The same flag in help and completions, parsed in another way. */
const parsedAs = <A, B>(
  flag: Flag.Flag<A>,
  parsing: (parse: Param.Parse<A>) => Param.Parse<B>
): Flag.Flag<B> =>
  Object.assign(Flag.map(flag, identity as (value: A) => never), { parse: parsing(flag.parse) })

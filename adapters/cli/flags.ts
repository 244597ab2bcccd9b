/** The three kinds of our options: a text, a text parsed by a rule, and a toggle. */
import { Effect, Result } from "effect"
import { CliError, type Command, Flag } from "effect/cli"

/** What a command gets by these flags. */
export type Given<Flags extends Command.Command.Config> = Command.Command.Config.Infer<Flags>

/** May be left out. */
export const optionalText = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

/** MUST be given, unless `Flag.optional` or `Flag.atLeast` follows; a text that breaks the rule is wrong usage. */
export const parsed = <A>(
  name: string,
  metavar: string,
  description: string,
  parse: (text: string) => Result.Result<A, string>
) =>
  Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.withDescription(description),
    Flag.mapEffect((value) =>
      Effect.fromResult(
        Result.mapError(
          parse(value),
          (expected) => new CliError.InvalidValue({ option: name, value, expected, kind: "flag" })
        )
      )
    )
  )

/** `false` if it is left out. */
export const toggle = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withoutNegation, Flag.withDefault(false))

/** The three shapes that options of ours have: a text, a text that a rule reads, and one that is there or not. */
import { Effect, Result } from "effect"
import { CliError, Flag } from "effect/cli"

/** May be left out. */
export const optionalText = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

/** MUST be given, unless `Flag.optional` or `Flag.atLeast` follows; a text against the rule is wrong usage. */
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

/** `false` where it is left out. */
export const toggle = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withoutNegation, Flag.withDefault(false))

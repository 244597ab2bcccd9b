/** How a command ends: 0 done, 1 refused or failed with one line on stderr, 2 wrong usage. */
import { Cause, Console, Effect, Option, Schema } from "effect"
import { printable } from "./Table.ts"

/** What failed and why, as one line. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>()("CommandFailed", {
  message: Schema.String
}) {}

/** The command line itself is wrong. */
export class WrongUsage extends Schema.TaggedError<WrongUsage>()("WrongUsage", {
  message: Schema.String
}) {}

/** Options that do nothing without another one. */
export const useless = (options: ReadonlyArray<string>, needed: string): WrongUsage =>
  new WrongUsage({ message: `${options.join(", ")}: of no use without ${needed}; give it as well` })

/** One of two options that need each other. */
export const unpaired = (one: string, other: string): WrongUsage =>
  new WrongUsage({ message: `${one} and ${other} belong together: give both, or neither` })

export const failed = (what: string, why: string): CommandFailed =>
  new CommandFailed({ message: `${what}: ${why}` })

/** Prints a failure as `portmapper: WHAT FAILED: WHY` and sets the exit status. */
export const reportFailure = (cause: Cause.Cause<unknown>): Effect.Effect<void> => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.void
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  process.exitCode = error instanceof WrongUsage || isUsageError(error) ? 2 : 1
  if (isUsageError(error)) return Effect.void
  return Console.error(`portmapper: ${error === undefined ? Cause.pretty(cause) : oneLine(error)}`)
}

/** The parser itself prints help and parse errors. */
const isUsageError = (error: unknown): boolean =>
  typeof error === "object" && error !== null && "_tag" in error && error._tag === "ShowHelp"

const oneLine = (error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error)
  return printable(message.replaceAll(/\s*\n\s*/g, "; "))
}

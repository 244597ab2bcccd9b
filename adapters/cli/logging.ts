/** Log lines go to stderr in every format: stdout is for a command's output. */
import { Effect, Layer, Logger, type LogLevel, Option, References } from "effect"
import { GlobalFlag } from "effect/cli"

export type LogFormat = "pretty" | "json" | "logfmt"

export interface LoggingOptions {
  readonly logFormat: LogFormat
  /** Of the command's own option or variable; one ahead of the command's name comes before it. */
  readonly logLevel: Option.Option<LogLevel.LogLevel>
}

export const loggingLayer = ({ logFormat, logLevel }: LoggingOptions) =>
  Layer.mergeAll(
    Logger.layer([loggers[logFormat]]),
    Layer.succeed(Logger.LogToStderr, true),
    Layer.effect(
      References.MinimumLogLevel,
      Effect.gen(function* () {
        const ahead = Option.flatten(yield* Effect.serviceOption(GlobalFlag.LogLevel))
        const given = Option.orElse(ahead, () => logLevel)
        return Option.isSome(given) ? given.value : yield* References.MinimumLogLevel
      })
    )
  )

const loggers = {
  pretty: Logger.consolePretty(),
  json: Logger.withConsoleError(Logger.formatJson),
  logfmt: Logger.withConsoleError(Logger.formatLogFmt)
} satisfies Record<LogFormat, Logger.Logger<unknown, void>>

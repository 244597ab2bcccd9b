/** Log lines go to stderr in every format: stdout is for a command's output. */
import { Layer, Logger } from "effect"

export type LogFormat = "pretty" | "json" | "logfmt"

export const loggingLayer = (format: LogFormat) =>
  Layer.mergeAll(Logger.layer([loggers[format]]), Layer.succeed(Logger.LogToStderr, true))

const loggers = {
  pretty: Logger.consolePretty(),
  json: Logger.withConsoleError(Logger.formatJson),
  logfmt: Logger.withConsoleError(Logger.formatLogFmt)
} satisfies Record<LogFormat, Logger.Logger<unknown, void>>

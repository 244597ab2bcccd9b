/**
 * Exports traces and metrics if OpenTelemetry's variables name a collector. Only then the exporter, `otlp.ts`, is loaded.
 * Source: opentelemetry.io/docs/specs/otel/protocol/exporter.
 */
import { Effect, Layer } from "effect"
import { type LoggingOptions, loggingLayer } from "./logging.ts"

const isExported = (env: Readonly<Record<string, string | undefined>>): boolean =>
  env["OTEL_SDK_DISABLED"]?.toLowerCase() !== "true" &&
  ["", "TRACES_", "METRICS_"].some((signal) => (env[`OTEL_EXPORTER_OTLP_${signal}ENDPOINT`] ?? "") !== "")

/** What exports them, if anything does. */
export const exporter = Effect.suspend(() =>
  isExported(process.env) ? Effect.promise(() => import("./otlp.ts")) : Effect.succeed(undefined)
)

/** What a long-running command says of itself: its log on stderr, and a span for each call to a collector. */
export const observedLayer = (options: LoggingOptions) =>
  Layer.merge(
    loggingLayer(options),
    Layer.unwrap(Effect.map(exporter, (otlp) => otlp?.tracesLayer ?? Layer.empty))
  )

/**
 * The page `/metrics` in Prometheus's text format: what is mapped, how calls end and how long they take, why ports
 * could not be reserved. Source: prometheus.io/docs/instrumenting/exposition_formats.
 */
import { Cause, Context, Effect, Exit, Metric, Option } from "effect"
import { formatUnsafe } from "effect/observability/PrometheusMetrics"
import type { FinishedCall } from "../../src/protocol/CallObserver.ts"
import { Driver, type DriverError, type ListedMapping } from "../../src/protocol/Driver.ts"
import { CallTimedOut, kindOf } from "../../src/protocol/Operations.ts"
import { Protocol, protocolNumber, protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { type DescriptorUse, descriptorSamples } from "./DescriptorSamples.ts"
import { mappingSamples } from "./MappingSamples.ts"
import type { Page } from "./Routes.ts"

export interface Metrics {
  /** For `CallObserver`. */
  readonly observe: (call: FinishedCall) => void
  readonly page: Effect.Effect<Page, DriverError, Driver>
}

/** A new set of metrics, starting at zero. */
export const makeMetrics = (descriptors?: Effect.Effect<DescriptorUse>): Metrics => {
  const registry: Metric.MetricRegistry = new Map()
  const calls = Context.make(Metric.MetricRegistry, registry)
  const durations = new Map<string, typeof duration>()
  for (const reason of failureReasons) failures(reason).updateUnsafe(0, calls)

  const durationOf = (method: string, outcome: Outcome) => {
    const key = `${method} ${outcome}`
    const known = durations.get(key)
    if (known !== undefined) return known
    const made = Metric.withAttributes(duration, { method, outcome })
    durations.set(key, made)
    return made
  }

  return {
    observe: ({ method, millis, exit }) => {
      durationOf(method, outcomeOf(exit)).updateUnsafe(millis / 1000, calls)
      const reason = Exit.isFailure(exit) ? failureReason(errorOf(exit.cause)) : undefined
      if (reason !== undefined) failures(reason).updateUnsafe(1, calls)
    },
    page: Effect.gen(function* () {
      const driver = yield* Driver
      const listed = driver.listPorts === undefined ? undefined : yield* driver.listPorts
      const mapped = listed === undefined ? "" : formatUnsafe(gaugesOf(listed)) + mappingSamples(listed)
      const used = descriptors === undefined ? "" : descriptorSamples(yield* descriptors)
      return {
        contentType: "text/plain; version=0.0.4; charset=utf-8",
        body: mapped + used + formatUnsafe(calls)
      }
    })
  }
}

/** How a call ended; `interrupted`: its caller disconnected. */
type Outcome = "ok" | "bad_request" | "unknown_method" | "refused" | "timed_out" | "interrupted" | "defect"

const outcomeOf = (exit: FinishedCall["exit"]): Outcome => {
  if (Exit.isSuccess(exit)) return "ok"
  const error = errorOf(exit.cause)
  if (error === undefined) return Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "defect"
  if (error instanceof CallTimedOut) return "timed_out"
  return ({ request: "bad_request", notFound: "unknown_method", driver: "refused" } as const)[kindOf(error)]
}

const errorOf = (cause: Cause.Cause<DriverError>): DriverError | undefined =>
  Option.getOrUndefined(Cause.findErrorOption(cause))

/** From 0.1 ms to a call's time limit, 10 s. */
const duration = Metric.histogram("portmapper_call_duration_seconds", {
  description: "How long the plugin's calls took, by method and outcome",
  boundaries: [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
  ]
})

const failureReasons = [
  "already_allocated",
  "all_allocated",
  "address_in_use",
  "denied",
  "not_local",
  "unsupported",
  "exhausted",
  "failed"
] as const
type FailureReason = (typeof failureReasons)[number]

const failureCounter = Metric.counter("portmapper_allocation_failures_total", {
  description: "Ports that could not be allocated, by reason",
  incremental: true
})
const counters = new Map(
  failureReasons.map((reason) => [reason, Metric.withAttributes(failureCounter, { reason })])
)
const failures = (reason: FailureReason) => counters.get(reason) ?? failureCounter

/** By the tags of the built-in mapper's errors; a custom driver that uses these tags is counted the same way. */
const failureReason = (error: DriverError | undefined): FailureReason | undefined => {
  switch (error?._tag) {
    case "PortAllocated":
      return "already_allocated"
    case "PortsExhausted":
      return "all_allocated"
    case "BindFailed":
      return bindReasons["reason" in error ? String(error.reason) : ""] ?? "failed"
    default:
      return undefined
  }
}

/** `exhausted`: the system ran out of memory or descriptors; `all_allocated`: the range has no free port. */
const bindReasons: Readonly<Record<string, FailureReason>> = {
  InUse: "address_in_use",
  Denied: "denied",
  NotLocal: "not_local",
  Unsupported: "unsupported",
  Exhausted: "exhausted"
}

const mappingsGauge = Metric.gauge("portmapper_mappings", {
  description: "What is mapped, by mode and protocol"
})

/** The built-in mapper's modes. */
const modes = ["nat", "engine", "proxy", "routed"]

/** Counted again for each scrape: every mode and protocol has its line, even at zero. */
const gaugesOf = (mappings: ReadonlyArray<ListedMapping>): Context.Context<never> => {
  const registry: Metric.MetricRegistry = new Map()
  const context = Context.make(Metric.MetricRegistry, registry)
  const counts = new Map<string, number>()
  for (const { mode, protocol } of mappings) {
    const key = `${mode} ${protocol}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  const own = modes.flatMap((mode) =>
    Protocol.literals.map((protocol) => `${mode} ${protocolNumber[protocol]}`)
  )
  for (const key of new Set([...own, ...counts.keys()])) {
    const [mode = "", number = ""] = key.split(" ")
    const protocol = protocolOfNumber(Number(number)) ?? number
    Metric.withAttributes(mappingsGauge, { mode, protocol }).updateUnsafe(counts.get(key) ?? 0, context)
  }
  return context
}

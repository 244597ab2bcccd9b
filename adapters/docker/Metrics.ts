/**
 * The metrics, and the page `/metrics` that has them in Prometheus's text format: the process, what is mapped, its
 * traffic, how calls end and how long they take, why ports could not be reserved.
 * Source: prometheus.io/docs/instrumenting/exposition_formats.
 */
import { Cause, Context, Effect, Exit, Metric, Option, Semaphore } from "effect"
import { formatUnsafe } from "effect/observability/PrometheusMetrics"
import type { FinishedCall } from "../../src/protocol/CallObserver.ts"
import { Driver, type DriverError, type ListedMapping } from "../../src/protocol/Driver.ts"
import { CallTimedOut, kindOf } from "../../src/protocol/Operations.ts"
import { Protocol, protocolNumber, protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { mappingSamples } from "./MappingSamples.ts"
import { type ProcessUse, processMetrics } from "./ProcessMetrics.ts"
import type { Page } from "./Routes.ts"
import { trafficFamilies, trafficTotals } from "./TrafficTotals.ts"

export interface MetricsOptions {
  /** The labels of `portmapper_build_info`; there is none if `undefined`. */
  readonly build?: Readonly<Record<string, string>> | undefined
  readonly process?: Effect.Effect<ProcessUse> | undefined
  /** The traffic on the page: of each mapping, the default, or in total by protocol. */
  readonly traffic?: "mappings" | "totals" | undefined
}

export interface Metrics {
  /** For `CallObserver`. */
  readonly observe: (call: FinishedCall) => void
  readonly page: Effect.Effect<Page, DriverError, Driver>
  /** The metrics for other exporters, traffic in total. */
  readonly registry: Metric.MetricRegistry
  /** Brings what is mapped, its traffic and the process up to date in `registry`; `page` does so, too. */
  readonly refresh: Effect.Effect<void, DriverError, Driver>
}

/** A new set of metrics, starting at zero. */
export const makeMetrics = ({ build, process, traffic = "mappings" }: MetricsOptions = {}): Metrics => {
  const registry: Metric.MetricRegistry = new Map()
  const context = Context.make(Metric.MetricRegistry, registry)
  if (build !== undefined) Metric.withAttributes(buildInfo, build).updateUnsafe(1, context)
  const setProcess = processMetrics(context)
  const setGauges = mappingGauges(context)
  const addTraffic = trafficTotals(context)
  const durations = new Map<string, typeof duration>()
  for (const reason of failureReasons) failures(reason).updateUnsafe(0, context)

  const durationOf = (method: string, outcome: Outcome) => {
    const key = `${method} ${outcome}`
    const known = durations.get(key)
    if (known !== undefined) return known
    const made = Metric.withAttributes(duration, { method, outcome })
    durations.set(key, made)
    return made
  }

  // In turns: an older list must not come after a newer one.
  const turns = Semaphore.makeUnsafe(1)
  const refresh = Effect.gen(function* () {
    if (process !== undefined) setProcess(yield* process)
    const driver = yield* Driver
    const listed = driver.listPorts === undefined ? undefined : yield* driver.listPorts
    if (listed !== undefined) {
      setGauges(listed)
      addTraffic(listed)
    }
    return listed
  }).pipe(turns.withPermits(1))

  return {
    observe: ({ method, millis, exit }) => {
      durationOf(method, outcomeOf(exit)).updateUnsafe(millis / 1000, context)
      const reason = Exit.isFailure(exit) ? failureReason(errorOf(exit.cause)) : undefined
      if (reason !== undefined) failures(reason).updateUnsafe(1, context)
    },
    registry,
    refresh: Effect.asVoid(refresh),
    page: Effect.gen(function* () {
      const listed = yield* refresh
      const shown = new Map(
        [...registry].filter(([, { id }]) => traffic === "totals" || !Object.hasOwn(trafficFamilies, id))
      )
      return {
        contentType: "text/plain; version=0.0.4; charset=utf-8",
        body:
          formatUnsafe(Context.make(Metric.MetricRegistry, shown)) +
          (listed === undefined || traffic === "totals" ? "" : mappingSamples(listed))
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
  "cluster_unavailable",
  "failed"
] as const
type FailureReason = (typeof failureReasons)[number]

const failureCounter = Metric.counter("portmapper_allocation_failures_total", {
  description: "Ports that could not be allocated, by reason",
  incremental: true
})
const failures = (reason: FailureReason) => Metric.withAttributes(failureCounter, { reason })

/** By the tags of the built-in mapper's errors; a custom driver that uses these tags is counted the same way. */
const failureReason = (error: DriverError | undefined): FailureReason | undefined => {
  if (error?._tag !== "BindFailed") return otherReasons[error?._tag ?? ""]
  return bindReasons["reason" in error ? String(error.reason) : ""] ?? "failed"
}

const otherReasons: Readonly<Record<string, FailureReason>> = {
  PortAllocated: "already_allocated",
  PortsExhausted: "all_allocated",
  ClusterUnavailable: "cluster_unavailable"
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

/** Counted again each time: every mode and protocol has its line, even at zero. */
const mappingGauges = (context: Context.Context<never>) => {
  const keys = new Set(
    modes.flatMap((mode) => Protocol.literals.map((protocol) => `${mode} ${protocolNumber[protocol]}`))
  )
  return (mappings: ReadonlyArray<ListedMapping>): void => {
    const counts = new Map<string, number>()
    for (const { mode, protocol } of mappings) {
      const key = `${mode} ${protocol}`
      keys.add(key)
      counts.set(key, (counts.get(key) ?? 0) + 1)
    }
    for (const key of keys) {
      const [mode = "", number = ""] = key.split(" ")
      const protocol = protocolOfNumber(Number(number)) ?? number
      Metric.withAttributes(mappingsGauge, { mode, protocol }).updateUnsafe(counts.get(key) ?? 0, context)
    }
  }
}

const buildInfo = Metric.gauge("portmapper_build_info", {
  description: "The version that runs, as labels; always 1"
})

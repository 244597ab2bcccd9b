/**
 * The process in the metrics, by the names that Prometheus's client libraries use, descriptors first.
 * Source: prometheus.io/docs/instrumenting/writing_clientlibs.
 */
import { type Context, Metric } from "effect"

export interface ProcessUse {
  readonly openDescriptors: number
  readonly maxDescriptors: number
  /** What the relay refused because it had no descriptors left. */
  readonly refused: Readonly<Record<"tcp" | "udp", number>>
  /** Of all threads, in the program and in the kernel for it. */
  readonly cpuSeconds: number
  readonly residentBytes: number
  /** Since the Unix epoch. */
  readonly startSeconds: number
}

/** Returns a function that sets the values. Before its first call no samples are exported. */
export const processMetrics = (context: Context.Context<never>): ((use: ProcessUse) => void) => {
  let latest: ProcessUse | undefined
  const register = (use: () => ProcessUse): void => {
    for (const [name, description, read] of gauges)
      Metric.registerUnsafe(Metric.gauge(name, { description }), context, {
        ...fixed,
        get: () => ({ value: read(use()) })
      })
    for (const [name, description, read, attributes] of counters)
      Metric.registerUnsafe(
        Metric.withAttributes(Metric.counter(name, { description, incremental: true }), attributes),
        context,
        { ...fixed, get: () => ({ count: read(use()), incremental: true }) }
      )
  }
  return (use) => {
    const isFirst = latest === undefined
    latest = use
    if (isFirst) register(() => latest ?? use)
  }
}

type Read = (use: ProcessUse) => number

/** For metrics that are read and never updated. */
const fixed = { update: () => undefined, modify: () => undefined }

const gauges: ReadonlyArray<readonly [name: string, description: string, read: Read]> = [
  ["process_open_fds", "Descriptors in use", (use) => use.openDescriptors],
  ["process_max_fds", "Descriptors that the process may have", (use) => use.maxDescriptors],
  ["process_resident_memory_bytes", "Memory in use, in bytes", (use) => use.residentBytes],
  ["process_start_time_seconds", "When the process started, since the Unix epoch", (use) => use.startSeconds]
]

const refusals = [
  "portmapper_relay_budget_refusals_total",
  "Times that a relayed port was left waiting (tcp), and new flows that replaced another or were dropped (udp), since descriptors lacked"
] as const

const counters: ReadonlyArray<
  readonly [name: string, description: string, read: Read, attributes: Readonly<Record<string, string>>]
> = [
  ["process_cpu_seconds_total", "Processor time in seconds", (use) => use.cpuSeconds, {}],
  [...refusals, (use) => use.refused.tcp, { protocol: "tcp" }],
  [...refusals, (use) => use.refused.udp, { protocol: "udp" }]
]

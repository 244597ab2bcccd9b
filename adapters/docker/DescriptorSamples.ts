/**
 * The descriptor samples of `/metrics`. The first two have the names that Prometheus's client libraries use.
 * Source: prometheus.io/docs/instrumenting/writing_clientlibs.
 */

/** The process's descriptors, and what the relay refused because it had none left. */
export interface DescriptorUse {
  readonly inUse: number
  readonly limit: number
  readonly refused: Readonly<Record<"tcp" | "udp", number>>
}

export const descriptorSamples = ({ inUse, limit, refused }: DescriptorUse): string =>
  [
    "# HELP process_open_fds Descriptors in use",
    "# TYPE process_open_fds gauge",
    `process_open_fds ${inUse}`,
    "# HELP process_max_fds Descriptors that the process may have",
    "# TYPE process_max_fds gauge",
    `process_max_fds ${limit}`,
    "# HELP portmapper_relay_budget_refusals_total Times that a relayed port was left waiting (tcp), and new flows that replaced another or were dropped (udp), since descriptors lacked",
    "# TYPE portmapper_relay_budget_refusals_total counter",
    `portmapper_relay_budget_refusals_total{protocol="tcp"} ${refused.tcp}`,
    `portmapper_relay_budget_refusals_total{protocol="udp"} ${refused.udp}`
  ]
    .map((line) => `${line}\n`)
    .join("")

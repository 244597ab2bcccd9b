/** What the hosts of a simulated cluster have in common. */
import type { ClusterStore } from "../../cluster/ClusterStore.ts"
import type { Fault, MemoryEtcd } from "../../cluster/MemoryEtcd.ts"
import type { Random } from "../Random.ts"
import type { Faults } from "./Faults.ts"
import type { Process, Schedule } from "./Schedule.ts"

export interface SimulationTimes {
  readonly ttlMillis: number
  readonly absenceMillis: number
}

export interface SimulatedWorld {
  readonly schedule: Schedule
  readonly random: Random
  readonly faults: Faults
  readonly etcd: MemoryEtcd["Service"]
  /** Does what no host's process does: network, etcd, kernels. */
  readonly outside: Process
  readonly times: SimulationTimes
  /** Both a clock that goes back and one that stands still would hide the end of a lease. */
  readonly clocksGoBack: boolean
  readonly wrap: (store: ClusterStore["Service"]) => ClusterStore["Service"]
  /** The leases that hosts have ended. */
  readonly revoked: Set<string>
  readonly arm: (host: string, fault: Fault) => void
  readonly log: (text: string) => void
}

/** The state of the model: what it knows of the host from the start, and of the mapper after each call. */
import type { Capabilities } from "../mapper/plan/Plan.ts"
import type { EphemeralPorts } from "../ports/HostSockets.ts"
import type { Frontend } from "./ModelAddress.ts"
import type { Elsewhere } from "./Target.ts"

/** What the model knows of the host from the start. */
export interface ModelHost {
  readonly capabilities: Capabilities
  readonly ephemeral: EphemeralPorts
}

export interface ModelMapping extends Frontend {
  /** 0 where it has no host port. */
  readonly port: number
  /** The frontend address as requested. */
  readonly asked: string
  readonly backend: string
  readonly backendIp: string
  readonly mode: string
  /** The labels that affect the mapper, as one text. */
  readonly policy: string
  readonly allow: string
  readonly owner: string
  /** The service that it is a backend of. */
  readonly share: string | undefined
  readonly epoch: number
  readonly standing: "answered" | "unconfirmed" | "conflicted"
  readonly recorded: "answered" | "applied"
  /** The calls that answered with it, while all of their answers are pending. */
  readonly pending?: ReadonlyArray<number> | undefined
  /** Whether its port may be held on the unspecified address, because both were granted together. */
  readonly wide: boolean
  /** Waits for its frontend, which another attachment of the same container has. */
  readonly standby?: true | undefined
  /** A person took its traffic away. */
  readonly drained?: true | undefined
  /** Took over from another where the relay refused, which is retried. */
  readonly unrelayed?: true | undefined
}

export interface Model {
  readonly mappings: ReadonlyArray<ModelMapping>
  /** Ports that other processes hold. */
  readonly taken: ReadonlyArray<Elsewhere>
  readonly refusing: ReadonlyArray<"firewall" | "store">
  readonly nowMillis: number
  readonly engine: { readonly epoch: number; readonly sinceMillis: number; readonly activated: boolean }
  /** The port last assigned from each range, `undefined` where it is unknown. */
  readonly last: ReadonlyMap<string, number | undefined>
}

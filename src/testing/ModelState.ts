/** What the model knows: of the host from the start, and of the mapper after each call. */
import type { Capabilities } from "../mapper/Plan.ts"
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
  /** The frontend address as it was asked for. */
  readonly asked: string
  readonly backend: string
  readonly backendIp: string
  readonly mode: string
  /** The labels that make a difference, as one text. */
  readonly policy: string
  readonly allow: string
  readonly owner: string
  readonly epoch: number
  readonly standing: "answered" | "unconfirmed" | "conflicted"
  readonly recorded: "answered" | "applied"
  /** The calls that answered with it, while it is not settled whether any of their answers arrives. */
  readonly pending?: ReadonlyArray<number> | undefined
  /** Its port may be held on the unspecified address, for it was granted together with that. */
  readonly wide: boolean
}

export interface Model {
  readonly mappings: ReadonlyArray<ModelMapping>
  /** Ports that other processes have. */
  readonly taken: ReadonlyArray<Elsewhere>
  readonly refusing: ReadonlyArray<"firewall" | "store">
  readonly nowMillis: number
  readonly engine: { readonly epoch: number; readonly sinceMillis: number; readonly activated: boolean }
  /** The port last given from a range, `undefined` where that is not known. */
  readonly last: ReadonlyMap<string, number | undefined>
}

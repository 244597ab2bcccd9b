/** The built-in mapper on this host as one layer: what `portmapper serve` runs, to embed in a program. */
import { Duration, Effect, Layer } from "effect"
import type { Mode } from "../../src/mapper/model/Labels.ts"
import type { Driver } from "../../src/protocol/Driver.ts"
import type { PortRange } from "../../src/protocol/PortRange.ts"
import type { AcceptMark } from "../linux/nft/Ruleset.ts"
import { prepareDirectory } from "../node/StateDirectory.ts"
import { mapperLayer, NatUnavailable } from "./Mapper.ts"

export { type AcceptMark, NatUnavailable }

export interface HostOptions {
  /** Where mappings are recorded, by one process at a time. Created if missing, private to this user. */
  readonly stateDirectory: string
  /** How traffic gets to a backend unless its labels say; by default `nat` if that is available, else `proxy`. */
  readonly mode?: Mode
  /** The range for ephemeral ports, instead of the system's. */
  readonly ephemeral?: PortRange
  /** The mark that the Engine accepts: its `--bridge-accept-fwmark`. */
  readonly acceptMark?: AcceptMark
  /** A relayed UDP flow is closed after this long without a packet in either direction. */
  readonly udpIdle?: Duration.Input
  /** The shared ports that callers of every kind may join, each by the label `portmapper.share=/NAME`. */
  readonly shares?: ReadonlyArray<string>
}

/**
 * Restores the recorded mappings and serves the `Driver`'s calls until the layer closes. Mappings then stay recorded,
 * and the next one restores them; unmap those that are to end. Fails if another process uses the state or the network
 * namespace, or if `mode` is not available.
 */
export const hostLayer = (options: HostOptions): Layer.Layer<Driver, HostError> => {
  const { stateDirectory, mode, ephemeral, acceptMark, udpIdle, shares } = options
  const idle = udpIdle === undefined ? undefined : Duration.fromInputUnsafe(udpIdle)
  return Layer.unwrap(
    Effect.as(
      prepareDirectory(stateDirectory),
      mapperLayer({ stateDirectory, mode, ephemeral, acceptMark, udpIdle: idle, shares })
    )
  )
}

/** Why it could not start; `message` is for the user. */
export interface HostError {
  readonly _tag: string
  readonly message: string
}

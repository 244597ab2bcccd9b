/** The built-in mapper on this host as one layer: what `portmapper serve` runs, for a program of one's own. */
import { Duration, Effect, Layer } from "effect"
import type { Mode } from "../../src/mapper/Labels.ts"
import type { Driver } from "../../src/protocol/Driver.ts"
import type { PortRange } from "../../src/protocol/PortRange.ts"
import type { AcceptMark } from "../linux/nft/Ruleset.ts"
import { prepareDirectory } from "../node/StateDirectory.ts"
import { mapperLayer, NatUnavailable } from "./Mapper.ts"

export { type AcceptMark, NatUnavailable }

export interface HostOptions {
  /** Where mappings are recorded, one process at a time. Made where it is missing, for this user alone. */
  readonly stateDirectory: string
  /** How traffic gets to a backend where its labels don't say; by default `nat` where that can be had, else `proxy`. */
  readonly mode?: Mode
  /** The range for ephemeral ports, instead of the system's. */
  readonly ephemeral?: PortRange
  /** What the Engine lets pass: its `--bridge-accept-fwmark`. */
  readonly acceptMark?: AcceptMark
  /** After this long without a packet either way a relayed UDP flow is closed. */
  readonly udpIdle?: Duration.Input
}

/**
 * Serves what is recorded already, and whatever the `Driver` is asked for, until the layer is closed. Mappings stay recorded
 * then, and are served again by the next one; unmap what is to end. Fails where another process works on the state or the
 * network namespace, or where `mode` can't be had.
 */
export const hostLayer = (options: HostOptions): Layer.Layer<Driver, HostError> => {
  const { stateDirectory, mode, ephemeral, acceptMark, udpIdle } = options
  const idle = udpIdle === undefined ? undefined : Duration.fromInputUnsafe(udpIdle)
  return Layer.unwrap(
    Effect.as(
      prepareDirectory(stateDirectory),
      mapperLayer({ stateDirectory, mode, ephemeral, acceptMark, udpIdle: idle })
    )
  )
}

/** Why it could not start; `message` is written for people. */
export interface HostError {
  readonly _tag: string
  readonly message: string
}

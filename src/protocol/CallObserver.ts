/** Who is told of every finished call, whatever transport made it: what metrics are made of. */
import { Context, type Exit } from "effect"
import type { DriverError } from "./Driver.ts"

export interface FinishedCall {
  /** `PortMapper.MapPorts`; see `Method`. */
  readonly method: string
  /** From the decoding of the request to the answer, which is not delivered yet. */
  readonly millis: number
  readonly exit: Exit.Exit<unknown, DriverError>
}

/** Runs in the caller's time: it MUST be quick and MUST NOT throw. `undefined`: nobody is told. */
export const CallObserver = Context.Reference<((call: FinishedCall) => void) | undefined>(
  "portmapper/protocol/CallObserver",
  { defaultValue: () => undefined }
)

/** The hook that every transport runs after each finished call; metrics are made from it. */
import { Context, type Exit } from "effect"
import type { DriverError } from "./Driver.ts"

export interface FinishedCall {
  /** `PortMapper.MapPorts`; see `Method`. */
  readonly method: string
  /** From decoding the request to having the answer; delivering the answer is not included. */
  readonly millis: number
  readonly exit: Exit.Exit<unknown, DriverError>
}

/** Runs inside the call, so it MUST be quick and MUST NOT throw. `undefined`: no observer. */
export const CallObserver = Context.Reference<((call: FinishedCall) => void) | undefined>(
  "portmapper/protocol/CallObserver",
  { defaultValue: () => undefined }
)

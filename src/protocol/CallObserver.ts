/** Who is told of every finished call, whatever transport made it: what metrics are made of. */
import { Context, type Exit } from "effect"
import type { Answer, CallError, Method } from "./Operations.ts"

export interface FinishedCall {
  readonly method: Method
  /** From the decoding of the request to the answer, which is not delivered yet. */
  readonly millis: number
  readonly exit: Exit.Exit<Answer, CallError>
}

/** Runs in the caller's time: it MUST be quick and MUST NOT throw. `undefined`: nobody is told. */
export const CallObserver = Context.Reference<((call: FinishedCall) => void) | undefined>(
  "portmapper/protocol/CallObserver",
  { defaultValue: () => undefined }
)

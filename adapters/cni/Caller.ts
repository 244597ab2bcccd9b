/** Who does the work: the running plugin behind its socket, or this process itself. Each answers the protocol's calls. */
import { CniError, codes } from "./CniError.ts"
import type { NetworkConfig } from "./NetworkConfig.ts"

export type Method = "MapGroups" | "UnmapPorts" | "ListPorts"

export interface Caller {
  /** One call in the name of an owner; answers the parsed JSON of a success. Throws a `CniError`. */
  readonly call: (method: Method, request: object, owner: string) => Promise<unknown>
  readonly close: () => Promise<void>
}

/**
 * Finds a caller and has it work. `recorded`: where no plugin is running and nothing is recorded there is nothing to work on.
 */
export type WithCaller = (
  config: NetworkConfig,
  when: "always" | "recorded",
  work: (caller: Caller) => Promise<void>
) => Promise<undefined>

/** Whose fault a refusal is, as the operations tell it; `stopping` is a plugin on its way out. */
export type RefusalKind = "request" | "notFound" | "driver" | "defect" | "stopping"

export const refusal = (kind: RefusalKind, message: string): CniError =>
  new CniError(
    {
      request: codes.config,
      stopping: codes.tryAgain,
      driver: codes.refused,
      notFound: codes.refused,
      defect: codes.internal
    }[kind],
    message
  )

/** Unmaps many bindings through a client, 500 to a call, and continues after a failed call. */
import { Effect, Result } from "effect"
import type { ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import type { ClientError } from "../docker/ClientError.ts"
import type { PluginClient } from "../docker/PluginClient.ts"

/** A binding takes up to 300 bytes, a request at most 1 MiB; and each call is limited to 10 s. */
const perCall = 500

export interface Unmapped {
  /** How many were in calls that succeeded. */
  readonly count: number
  readonly errors: ReadonlyArray<ClientError>
}

export const unmapEach = Effect.fnUntraced(function* (
  client: PluginClient,
  bindings: ReadonlyArray<ReleasedBinding>,
  done: (more: number) => void = () => undefined
) {
  let count = 0
  const errors: Array<ClientError> = []
  for (let at = 0; at < bindings.length; at += perCall) {
    const batch = bindings.slice(at, at + perCall)
    const result = yield* Effect.result(client.unmapPorts({ bindings: batch, labels: new Map() }))
    if (Result.isSuccess(result)) count += batch.length
    else errors.push(result.failure)
    done(batch.length)
    // No plugin is there for the other calls either.
    if (Result.isFailure(result) && result.failure._tag === "CannotConnect") break
  }
  return { count, errors } satisfies Unmapped
})

/** The first error, and how many more there are. */
export const errorsText = ([first, ...rest]: ReadonlyArray<{ readonly message: string }>): string =>
  `${first?.message ?? ""}${rest.length === 0 ? "" : ` (and ${rest.length} more failures)`}`

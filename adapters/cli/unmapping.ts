/** Unmaps many bindings through a client, 500 to a call, and continues after a failed call. */
import { Array as Arr, Effect, Result } from "effect"
import type { Release, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import type { ClientError } from "../docker/ClientError.ts"
import type { PluginClient } from "../docker/PluginClient.ts"

/** A binding takes up to 300 bytes, a request at most 1 MiB; and each call is limited to 10 s. */
const perCall = 500

export interface Unmapped {
  /** How many were in calls that succeeded. */
  readonly count: number
  readonly errors: ReadonlyArray<ClientError>
}

export const unmapEach = (client: PluginClient, bindings: ReadonlyArray<ReleasedBinding>) =>
  releaseEach(client, [{ bindings, labels: new Map() }])

export const releaseEach = Effect.fnUntraced(function* (
  client: PluginClient,
  releases: ReadonlyArray<Release>,
  done: (more: number) => void = () => undefined
) {
  let count = 0
  const errors: Array<ClientError> = []
  const calls = releases.flatMap(({ bindings, labels }) =>
    Arr.chunksOf(bindings, perCall).map((batch) => ({ batch, labels }))
  )
  for (const { batch, labels } of calls) {
    const result = yield* Effect.result(client.unmapPorts({ bindings: batch, labels }))
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

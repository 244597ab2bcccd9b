/** Unmaps what a driver has mapped, for all owners or for one. */
import { Effect, Result } from "effect"
import { parseAddress } from "./Address.ts"
import { type Driver, type DriverError, type ListedMapping, ListedOwner } from "./Driver.ts"
import type { ReleasedBinding } from "./PortBinding.ts"
import { protocolOfNumber } from "./Protocol.ts"

/** Returns how many mappings were released: none where the driver does not list its mappings. */
export const releaseAll = (driver: Driver["Service"], owner?: string): Effect.Effect<number, DriverError> =>
  Effect.gen(function* () {
    if (driver.listPorts === undefined) return 0
    const listed = yield* Effect.provideService(driver.listPorts, ListedOwner, owner)
    const bindings = listed
      .filter((mapping) => owner === undefined || mapping.owner === owner)
      .flatMap(releasedBinding)
    if (bindings.length > 0) yield* driver.unmapPorts({ bindings, labels: new Map() })
    return bindings.length
  })

export const releasedBinding = (mapping: ListedMapping): ReadonlyArray<ReleasedBinding> => {
  const protocol = protocolOfNumber(mapping.protocol)
  const host = parseAddress(mapping.frontendIp)
  const address = parseAddress(mapping.backendIp)
  if (protocol === undefined || Result.isFailure(host) || Result.isFailure(address)) return []
  return [
    {
      protocol,
      host: host.success,
      port: mapping.frontendPort,
      backend: { address: address.success, port: mapping.backendPort }
    }
  ]
}

export const releaseAtEnd = (driver: Driver["Service"]): Effect.Effect<void> =>
  releaseAll(driver).pipe(
    Effect.flatMap((count) => Effect.logInfo(`released ${count} mappings`)),
    Effect.catch((error) => Effect.logError(`releasing at the end: ${error.message}`))
  )

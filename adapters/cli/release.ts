/** Unmaps what a driver has mapped, for all owners or for one. */
import { Effect, Result } from "effect"
import { parseAddress } from "../../src/protocol/Address.ts"
import type { Driver, DriverError, ListedMapping } from "../../src/protocol/Driver.ts"
import type { ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"

/** Returns how many mappings were released. */
export const releaseAll = (
  driver: Driver["Service"],
  owned: (mapping: ListedMapping) => boolean = () => true
): Effect.Effect<number, DriverError> =>
  Effect.gen(function* () {
    const listed = driver.listPorts === undefined ? [] : yield* driver.listPorts
    const bindings = listed.filter(owned).flatMap(releasedBinding)
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

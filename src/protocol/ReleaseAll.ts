/** Unmaps what a driver has mapped, for all owners or for one. */
import { Effect, Result } from "effect"
import { parseAddress, unspecified } from "./Address.ts"
import { type Driver, type DriverError, type ListedMapping, ListedOwner } from "./Driver.ts"
import { followedInterface } from "./FollowLabels.ts"
import { interfaceLabel } from "./InterfaceLabel.ts"
import type { Release, ReleasedBinding } from "./PortBinding.ts"
import { protocolOfNumber } from "./Protocol.ts"

/**
 * Returns how many mappings were released: none where the driver does not list its mappings. What can't be released
 * keeps no other from it; the error names each.
 */
export const releaseAll = (driver: Driver["Service"], owner?: string): Effect.Effect<number, DriverError> =>
  Effect.gen(function* () {
    if (driver.listPorts === undefined) return 0
    const listed = yield* Effect.provideService(driver.listPorts, ListedOwner, owner)
    const releases = releasesOf(listed.filter((mapping) => owner === undefined || mapping.owner === owner))
    const [, failures] = yield* Effect.partition(releases, (release) => driver.unmapPorts(release))
    const [first] = failures
    if (first !== undefined)
      return yield* Effect.fail({
        _tag: first._tag,
        message: failures.map(({ message }) => message).join("; ")
      })
    return releases.reduce((sum, { bindings }) => sum + bindings.length, 0)
  })

/** The ports of each interface are released at all of its addresses, by the label `portmapper.interface`. */
export const releasesOf = (listed: ReadonlyArray<ListedMapping>): ReadonlyArray<Release> =>
  [...Map.groupBy(listed, ({ labels }) => followedInterface(labels))].flatMap(([name, mappings]) => {
    if (name === undefined) {
      const bindings = mappings.flatMap(releasedBinding)
      return bindings.length === 0 ? [] : [{ bindings, labels: new Map() }]
    }
    const bindings = mappings.flatMap((mapping) =>
      releasedBinding({ ...mapping, frontendIp: anyHost(mapping) })
    )
    return [{ bindings, labels: new Map([[interfaceLabel, name]]) }]
  })

/** An interface may have no address. */
const anyHost = ({ backendIp }: ListedMapping): string => unspecified(backendIp.includes(":") ? 6 : 4).text

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

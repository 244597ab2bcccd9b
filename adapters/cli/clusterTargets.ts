/**
 * `GET /cluster/targets`: what the cluster serves over TCP, for Prometheus to scrape.
 * Source: prometheus.io/docs/prometheus/latest/http_sd.
 */
import { Effect, Result } from "effect"
import { hostText, parseAddress } from "../../src/protocol/Address.ts"
import { Driver, type ListedMapping, ListedScope } from "../../src/protocol/Driver.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"
import type { Page } from "../docker/Routes.ts"

export const clusterTargets = Effect.gen(function* () {
  const { listPorts } = yield* Driver
  const listed =
    listPorts === undefined ? [] : yield* Effect.provideService(listPorts, ListedScope, "cluster")
  const targets = listed.flatMap((mapping) =>
    mapping.protocol === protocolNumber.tcp && mapping.at !== undefined ? [targetOf(mapping, mapping.at)] : []
  )
  const page: Page = { contentType: "application/json", body: `${JSON.stringify(targets)}\n` }
  return page
})

/** A host that says no address is reached by its name. */
const targetOf = (
  { frontendPort, owner, service, container }: ListedMapping,
  { host, address }: NonNullable<ListedMapping["at"]>
) => ({
  targets: [`${address === undefined ? host : textOf(address)}:${frontendPort}`],
  labels: {
    __meta_portmapper_host: host,
    __meta_portmapper_owner: owner,
    __meta_portmapper_container: container ?? "",
    __meta_portmapper_service: service ?? ""
  }
})

const textOf = (address: string): string =>
  Result.match(parseAddress(address), { onFailure: () => address, onSuccess: hostText })

import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { clusterTargets } from "../../adapters/cli/clusterTargets.ts"
import { Driver, type ListedMapping, ListedScope } from "../../src/protocol/Driver.ts"

const row = (more: Partial<ListedMapping>): ListedMapping => ({
  ...{ protocol: 6, frontendIp: "", frontendPort: 8080, backendIp: "172.17.0.2", backendPort: 80 },
  ...{ mode: "", owner: "cli", state: "live", sinceMillis: 0, labels: new Map() },
  ...{ connections: undefined, bytesIn: undefined, bytesOut: undefined },
  at: { host: "a", address: undefined },
  ...more
})

const rows = [
  row({ container: "web/0123456789ab" }),
  row({ frontendPort: 9090, at: { host: "b", address: "2001:db8::2" }, service: "web" }),
  row({ protocol: 17 })
]

it.effect("lists the cluster's TCP ports for Prometheus, at the addresses that the hosts give", () =>
  Effect.gen(function* () {
    const { contentType, body } = yield* clusterTargets
    assert.strictEqual(contentType, "application/json")
    assert.deepStrictEqual(JSON.parse(body), [
      {
        targets: ["a:8080"],
        labels: {
          __meta_portmapper_host: "a",
          __meta_portmapper_owner: "cli",
          __meta_portmapper_container: "web/0123456789ab",
          __meta_portmapper_service: ""
        }
      },
      {
        targets: ["[2001:db8::2]:9090"],
        labels: {
          __meta_portmapper_host: "b",
          __meta_portmapper_owner: "cli",
          __meta_portmapper_container: "",
          __meta_portmapper_service: "web"
        }
      }
    ])
  }).pipe(
    Effect.provideService(
      Driver,
      Driver.of({
        mapPorts: () => Effect.succeed([]),
        unmapPorts: () => Effect.void,
        listPorts: Effect.map(ListedScope, (scope) => (scope === "cluster" ? rows : []))
      })
    )
  )
)

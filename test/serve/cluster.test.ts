/** Two plugins and a real etcd: what a port of one host means on the other, when hosts end and come back. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { until } from "../support/until.ts"

const web = "tcp 0.0.0.0:8080 172.31.0.2:80"
const other = "tcp 0.0.0.0:8080 172.31.0.3:80"

interface Row {
  readonly FrontendPort: number
  readonly State: string
  readonly Host: string
  readonly HostAddress: string
  readonly Reason: string
}

const rows = (plugin: Plugin.Plugin, body: Record<string, string> = {}) =>
  Effect.map(
    plugin.call("ListPorts", body),
    (answer) => (JSON.parse(answer.body) as { readonly Mappings: ReadonlyArray<Row> }).Mappings
  )

describeLab("hosts of a cluster", ["etcd"], () => {
  it.live(
    "refuse each other's ports with the holder's name, and get those of a host that died after the TTL",
    () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        const { urls } = yield* startEtcd({ places: [{ ...c1, address: "172.31.0.2" }] })
        const start = (on: Namespace, name: string, address: string, options: Plugin.PluginOptions = {}) =>
          Plugin.start(on, {
            ...options,
            arguments: [
              ...["--cluster", urls, "--cluster-host", name, "--cluster-address", address],
              ...["--cluster-ttl", "5s", ...(options.arguments ?? [])]
            ]
          })
        const [a, b] = yield* Effect.all([start(host, "a", "10.99.0.1"), start(client, "b", "10.99.0.2")], {
          concurrency: "unbounded"
        })
        assert.strictEqual((yield* a.map([web], { "portmapper.container": "web" })).error, "")
        const refused = yield* b.map([other])
        assert.deepStrictEqual(
          [refused.status, refused.error],
          [500, "bind for 0.0.0.0:8080/tcp failed: port is already allocated (held by host a, container web)"]
        )
        const listed = yield* until(rows(b, { Scope: "cluster" }), (seen) => seen.length > 0)
        assert.deepStrictEqual(
          listed.map(({ FrontendPort, Host, HostAddress }) => [FrontendPort, Host, HostAddress]),
          [[8080, "a", "10.99.0.1"]]
        )

        yield* a.process.kill("SIGKILL")
        const { error } = yield* until(b.map([other]), ({ status }) => status === 200)
        assert.strictEqual(error, "")

        const again = yield* start(host, "a", "10.99.0.1", { folder: a.folder })
        const [row] = yield* until(rows(again), ([seen]) => seen?.State === "conflicted")
        assert.deepStrictEqual(
          [row?.State, row?.Reason],
          [
            "conflicted",
            "bind for 0.0.0.0:8080/tcp failed: port is already allocated (held by host b for 172.31.0.3:80, owner engine)"
          ]
        )
        assert.notInclude(JSON.stringify(yield* contents(host)), "8080")

        // Neither an upgrade nor a stop gives up what b has.
        const next = yield* start(client, "b", "10.99.0.2", {
          folder: b.folder,
          arguments: ["--takeover", "--grace", "0s"]
        })
        yield* next.process.stop
        assert.strictEqual((yield* again.map(["tcp 0.0.0.0:8080 172.31.0.2:81"])).status, 500)
      })
  )
})

/** What a mapping carried, as `ListPorts` and `/metrics` tell it. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { request } from "../support/http.ts"

interface Listed {
  readonly Connections: number
  readonly BytesIn: number | null
  readonly BytesOut: number | null
}

const counted = (plugin: Plugin.Plugin) =>
  Effect.map(
    plugin.call("ListPorts", {}),
    ({ body }) => (JSON.parse(body) as { readonly Mappings: ReadonlyArray<Listed> }).Mappings[0]
  )

describeLab("counters of a mapping", [], () => {
  it.live("tell connections always, and bytes where the host accounts them", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", port: 80 })
      const plugin = yield* Plugin.start(host)
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
      yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })
      const before = yield* counted(plugin)
      assert.deepStrictEqual([before?.Connections, before?.BytesIn, before?.BytesOut], [1, null, null])

      yield* host.sh("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
      yield* counted(plugin)
      const chunkBytes = 1000
      const transfer = yield* client.agent.transfer({
        host: "10.99.0.1",
        port: 8080,
        chunkBytes,
        intervalMillis: 1
      })
      const { rounds } = yield* transfer.advance(100)
      yield* transfer.stop
      yield* Effect.sleep(1100)
      const after = yield* counted(plugin)
      assert.strictEqual(after?.Connections, 2)
      for (const bytes of [after?.BytesIn ?? 0, after?.BytesOut ?? 0]) {
        assert.isAbove(bytes, rounds * chunkBytes)
        assert.isBelow(bytes, rounds * chunkBytes * 1.5 + 10_000)
      }
      const { body } = yield* Effect.promise(() => request(plugin.socket, "/metrics", "", { method: "GET" }))
      const labels = 'protocol="tcp",frontend="0.0.0.0:8080",backend="172.31.0.2:80"'
      assert.include(body, `portmapper_connections_total{${labels}} 2\n`)
      assert.include(body, `portmapper_bytes_total{${labels},direction="in"} ${after?.BytesIn}\n`)
    })
  )
})

/** Prometheus's own tool on a live scrape, and on the alerts. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab, testNeeding } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { request } from "../support/http.ts"

const monitoring = join(import.meta.dirname, "../../deploy/monitoring")

const promtool = (args: ReadonlyArray<string>, input = "") => {
  const { status, stdout, stderr } = spawnSync("promtool", args, { cwd: monitoring, input, encoding: "utf8" })
  assert.strictEqual(status, 0, stdout + stderr)
  return stdout + stderr
}

describeLab("the page of metrics", ["promtool"], () => {
  for (const traffic of ["mappings", "totals"])
    it.live(`is without a fault to promtool, with traffic by ${traffic}`, () =>
      Effect.gen(function* () {
        const { host, c1, client } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        yield* host.sh("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
        const plugin = yield* Plugin.start(host, { arguments: ["--metrics", traffic] })
        yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
        yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })
        const { body } = yield* Effect.promise(() =>
          request(plugin.socket, "/metrics", "", { method: "GET" })
        )
        assert.include(body, "portmapper_connections_total{")
        assert.strictEqual(promtool(["check", "metrics"], body), "")
      })
    )
})

testNeeding(
  "promtool finds the alerts right, and each of them fires when it should",
  ["promtool"],
  async () => {
    assert.include(promtool(["check", "rules", "alerts.yml"]), "7 rules found")
    assert.include(promtool(["test", "rules", "alerts.test.yml"]), "SUCCESS")
  }
)

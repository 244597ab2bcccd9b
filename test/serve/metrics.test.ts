/** What `serve` measures of itself, against the dashboard and the alerts that show it. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { request } from "../support/http.ts"

const monitoring = join(import.meta.dirname, "../../deploy/monitoring")
const scrape = (plugin: Plugin.Plugin) =>
  Effect.map(
    Effect.promise(() => request(plugin.socket, "/metrics", "", { method: "GET" })),
    ({ body }) => body
  )

describeLab("the metrics of a plugin", [], () => {
  it.live("are all that the dashboard and the alerts ask for, from a live scrape", () =>
    Effect.gen(function* () {
      const { host, c1, client } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      yield* host.sh("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
      const plugin = yield* Plugin.start(host, { arguments: ["--metrics", "totals"] })
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"], { "portmapper.allow": "10.99.0.0/24" })
      yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })
      const page = yield* scrape(plugin)
      const value = (sample: string) =>
        Number(
          page
            .split("\n")
            .find((line) => line.startsWith(`${sample} `))
            ?.slice(sample.length)
        )
      assert.strictEqual(
        value(`portmapper_build_info{version="${manifest.version}",node="${process.versions.node}"}`),
        1
      )
      assert.isAtLeast(value("process_open_fds"), 10)
      assert.isAbove(value("process_max_fds"), value("process_open_fds"))
      assert.isAbove(value("process_resident_memory_bytes"), 20e6)
      assert.isAbove(value("process_cpu_seconds_total"), 0)
      assert.isBelow(Math.abs(Date.now() / 1000 - value("process_start_time_seconds")), 3600)
      assert.strictEqual(value('portmapper_connections_total{protocol="tcp"}'), 1)
      assert.notInclude(page, "8080")

      const families = new Set([...page.matchAll(/^# TYPE (\w+)/gm)].map(([, name]) => name))
      for (const file of ["grafana.json", "alerts.yml"]) {
        const text = readFileSync(join(monitoring, file), "utf8")
        const asked = new Set(text.match(/\b(portmapper|process)_[a-z_]+\b/g))
        assert.isAbove(asked.size, 6)
        for (const name of asked)
          assert.isTrue(
            families.has(name.replace(/(?<=_seconds)_(bucket|count|sum)$/, "")),
            `${file}: ${name}`
          )
      }
    })
  )
})

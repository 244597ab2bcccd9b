/** Prometheus and its tool on a live plugin, its dashboard and its alerts. */
import { spawnSync } from "node:child_process"
import { copyFileSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab, testNeeding } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { request } from "../support/http.ts"
import { until } from "../support/until.ts"

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

interface Dashboard {
  readonly panels: ReadonlyArray<{
    readonly title: string
    readonly targets: ReadonlyArray<{ readonly expr: string }>
  }>
}

/** Of Prometheus's HTTP API. */
interface Answer {
  readonly status: string
  readonly error?: string
  readonly data: {
    readonly result?: ReadonlyArray<unknown>
    readonly groups?: ReadonlyArray<{
      readonly rules: ReadonlyArray<{
        readonly name: string
        readonly health: string
        readonly lastError?: string
      }>
    }>
  }
}

describeLab("a Prometheus server that scrapes a plugin", ["promtool", "curl"], () => {
  it.live("has values for every panel of the dashboard, and evaluates every alert", () =>
    Effect.gen(function* () {
      const { host, c1, client } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      yield* host.sh("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
      const folder = yield* Plugin.temporaryFolder
      const plugin = yield* Plugin.start(host, {
        arguments: ["--tcp", "127.0.0.1:7000", "--spec-dir", folder]
      })
      copyFileSync(join(monitoring, "alerts.yml"), join(folder, "alerts.yml"))
      const scrapes = [{ job_name: "plugin", static_configs: [{ targets: ["127.0.0.1:7000"] }] }]
      writeFileSync(
        join(folder, "prometheus.yml"),
        JSON.stringify({
          global: { scrape_interval: "500ms", scrape_timeout: "500ms", evaluation_interval: "500ms" },
          rule_files: ["alerts.yml"],
          scrape_configs: scrapes
        })
      )
      const prometheus = yield* host.spawn("prometheus", [
        `--config.file=${folder}/prometheus.yml`,
        `--storage.tsdb.path=${folder}/data`,
        "--web.listen-address=127.0.0.1:9090"
      ])
      yield* prometheus.waitForLine("Server is ready", { timeoutMillis: 60_000 })
      const api = (path: string, ...args: ReadonlyArray<string>) =>
        Effect.map(
          host.exec("curl", ["-s", "--get", `http://127.0.0.1:9090/api/v1/${path}`, ...args]),
          ({ stdout }) => JSON.parse(stdout) as Answer
        )
      const query = (expr: string) => api("query", "--data-urlencode", `query=${expr}`)
      yield* until(query("portmapper_build_info"), ({ data }) => data.result?.length === 1)
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"], { "portmapper.allow": "10.99.0.0/24" })
      yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })
      // A refusal as a first sample is no increase yet.
      for (const count of [1, 2]) {
        yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.3:80"])
        yield* until(
          query(`portmapper_allocation_failures_total{reason="already_allocated"} == ${count}`),
          ({ data }) => data.result?.length === 1
        )
      }
      yield* until(query("rate(portmapper_bytes_total[1m])"), ({ data }) => data.result?.length === 2)

      const { panels } = JSON.parse(readFileSync(join(monitoring, "grafana.json"), "utf8")) as Dashboard
      const empty: Array<string> = []
      for (const { title, targets } of panels)
        for (const { expr } of targets) {
          const asked = expr.replaceAll("$instance", ".*").replaceAll("$__rate_interval", "1m")
          const { status, error, data } = yield* query(asked)
          assert.strictEqual(status, "success", `${title}: ${error}`)
          if (data.result?.length === 0) empty.push(title)
        }
      assert.deepStrictEqual(empty, [])

      const { data } = yield* until(api("rules"), ({ data }) =>
        (data.groups?.[0]?.rules ?? []).every(({ health }) => health !== "unknown")
      )
      const rules = data.groups?.[0]?.rules ?? []
      assert.lengthOf(rules, 7)
      for (const { name, health, lastError } of rules)
        assert.strictEqual(health, "ok", `${name}: ${lastError}`)
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

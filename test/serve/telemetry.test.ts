/** Traces and metrics to a collector, by OpenTelemetry's variables. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import type { Span } from "../support/collector.ts"

const service = `service.name=portmapper service.version=${manifest.version}`
const ofExporter = (url: string) => /\/effect\/dist\/observability\/Otlp|cli\/otlp/.test(url)
/** What reads the option `--cluster` is there. */
const ofCluster = (url: string) => /src\/cluster\/|cli\/clustering|etcd\/(?!EtcdOptions)/.test(url)

describeLab("a plugin with a collector", [], () => {
  it.live(
    "exports a span for each call with its steps, and the metrics; without one it loads no exporter",
    () =>
      Effect.gen(function* () {
        const { host, c1, client } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const collector = yield* host.spawn(process.execPath, [
          join(import.meta.dirname, "../support/collector.ts")
        ])
        const [, endpoint = ""] = /at (.*)/.exec(yield* collector.waitForLine(/^collecting at /)) ?? []
        const folder = yield* Plugin.temporaryFolder
        const loaded = join(folder, "loaded")
        const env = { ...Plugin.importing("loadedModules"), LOADED_MODULES: loaded }
        const modules = () => readFileSync(loaded, "utf8").split("\n")

        const silent = yield* Plugin.start(host, { folder, env })
        yield* silent.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
        yield* silent.process.stop
        assert.isAbove(modules().length, 100)
        assert.deepStrictEqual(modules().filter(ofExporter), [])
        assert.deepStrictEqual(modules().filter(ofCluster), [])

        const plugin = yield* Plugin.start(host, {
          folder,
          env: {
            ...env,
            OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
            OTEL_BSP_SCHEDULE_DELAY: "50",
            OTEL_METRIC_EXPORT_INTERVAL: "100"
          }
        })
        yield* plugin.map(["tcp 0.0.0.0:8081 172.31.0.2:80"])
        yield* plugin.map(["tcp 0.0.0.0:8081 172.31.0.3:80"])
        yield* plugin.call("MapPorts", "{")
        yield* client.agent.tcp({ host: "10.99.0.1", port: 8081 })
        yield* collector.waitForLine(/^metrics .*portmapper_connections_total protocol=tcp 1"/)
        yield* plugin.process.stop

        const spans = collector
          .lines("stdout")
          .filter((line) => line.startsWith("span "))
          .map(
            (line) => JSON.parse(line.slice(5)) as Span & { readonly service: string; readonly path: string }
          )
        for (const span of spans) assert.deepStrictEqual([span.service, span.path], [service, "/v1/traces"])
        const calls = spans.filter(({ parentSpanId }) => parentSpanId === undefined)
        assert.deepStrictEqual(
          calls.map(({ name, kind, status }) => [name, kind, status.code]),
          [
            ["PortMapper.MapPorts", 2, 1],
            ["PortMapper.MapPorts", 2, 2],
            ["PortMapper.MapPorts", 2, 2]
          ]
        )
        assert.include(calls[1]?.status.message, "port is already allocated")
        assert.include(calls[2]?.status.message, "JSON")
        const steps = spans.filter(({ parentSpanId }) => parentSpanId === calls[0]?.spanId)
        assert.deepStrictEqual(steps.map(({ name }) => name).sort(), [
          "Conntrack.flush",
          "Firewall.apply",
          "MappingStore.put",
          "PortAllocator.reserve",
          "Relay.open"
        ])
        for (const step of steps)
          assert.isTrue(
            BigInt(step.startTimeUnixNano) >= BigInt(calls[0]?.startTimeUnixNano ?? 0) &&
              BigInt(step.endTimeUnixNano) <= BigInt(calls[0]?.endTimeUnixNano ?? 0)
          )

        const last = collector.lines("stdout").findLast((line) => line.startsWith("metrics ")) ?? ""
        const { samples, ...from } = JSON.parse(last.slice(8)) as { readonly samples: ReadonlyArray<string> }
        assert.deepStrictEqual(from, { service, path: "/v1/metrics" } as object)
        assert.include(samples, "portmapper_mappings mode=nat protocol=tcp 2")
        assert.include(samples, "portmapper_allocation_failures_total reason=already_allocated 1")
        assert.isTrue(samples.some((sample) => /^process_open_fds \d+$/.test(sample)))
        assert.isAbove(modules().filter(ofExporter).length, 5)
      })
  )
})

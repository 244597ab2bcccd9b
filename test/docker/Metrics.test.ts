import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { makeMetrics } from "../../adapters/docker/Metrics.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CallObserver } from "../../src/protocol/CallObserver.ts"
import { Driver, type ListedMapping } from "../../src/protocol/Driver.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"
import { listedMapping } from "../support/mappings.ts"
import { wireEntry } from "../support/requests.ts"
import { until } from "../support/until.ts"

const body = (port: number, backend: string, protocol = "tcp") =>
  JSON.stringify({ Reqs: [wireEntry(`${protocol} 0.0.0.0:${port} ${backend}:80`)] })

/** The samples of a page whose values do not depend on time, without those at zero. */
const samples = (page: string): ReadonlyArray<string> =>
  page
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#") && !/_bucket|_sum/.test(line) && !/ 0$/.test(line))
    .sort()

describe("the metrics page", () => {
  it.live("counts mappings, calls and allocation failures", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const metrics = makeMetrics({
        build: { version: "1.2.3", node: "24.0.0" },
        process: Effect.succeed({
          openDescriptors: 35,
          maxDescriptors: 512,
          refused: { tcp: 7, udp: 0 },
          cpuSeconds: 1.5,
          residentBytes: 4096,
          startSeconds: 1700000000.5
        })
      })
      yield* Effect.provideService(
        serveUnix(path, { pages: { "/metrics": metrics.page } }),
        CallObserver,
        metrics.observe
      )
      const ask = (url: string, text = "", method = "POST") =>
        Effect.promise(() => request(path, url, text, { method }))
      yield* ask("/Plugin.Activate")
      yield* ask("/PortMapper.MapPorts", body(8080, "172.17.0.2"))
      yield* ask("/PortMapper.MapPorts", body(8080, "172.17.0.2"))
      yield* ask("/PortMapper.MapPorts", body(53, "172.17.0.2", "udp"))
      yield* ask("/PortMapper.MapPorts", body(8080, "172.17.0.3"))
      yield* ask("/PortMapper.MapPorts", "{")
      yield* ask("/PortMapper.UnmapPorts", "{}")
      const { status, contentType, body: page } = yield* ask("/metrics", "", "GET")
      assert.deepStrictEqual([status, contentType], [200, "text/plain; version=0.0.4; charset=utf-8"])
      assert.deepStrictEqual(samples(page), [
        'portmapper_allocation_failures_total{reason="already_allocated"} 1',
        'portmapper_build_info{version="1.2.3",node="24.0.0"} 1',
        'portmapper_call_duration_seconds_count{method="Plugin.Activate",outcome="ok"} 1',
        'portmapper_call_duration_seconds_count{method="PortMapper.MapPorts",outcome="bad_request"} 1',
        'portmapper_call_duration_seconds_count{method="PortMapper.MapPorts",outcome="ok"} 3',
        'portmapper_call_duration_seconds_count{method="PortMapper.MapPorts",outcome="refused"} 1',
        'portmapper_call_duration_seconds_count{method="PortMapper.UnmapPorts",outcome="ok"} 1',
        'portmapper_mappings{mode="nat",protocol="tcp"} 1',
        'portmapper_mappings{mode="nat",protocol="udp"} 1',
        'portmapper_relay_budget_refusals_total{protocol="tcp"} 7',
        "process_cpu_seconds_total 1.5",
        "process_max_fds 512",
        "process_open_fds 35",
        "process_resident_memory_bytes 4096",
        "process_start_time_seconds 1700000000.5"
      ])
      for (const line of [
        "# TYPE portmapper_mappings gauge",
        'portmapper_mappings{mode="proxy",protocol="sctp"} 0',
        "# TYPE portmapper_call_duration_seconds histogram",
        'portmapper_call_duration_seconds_bucket{method="PortMapper.MapPorts",outcome="ok",le="+Inf"} 3',
        "# TYPE portmapper_allocation_failures_total counter",
        'portmapper_allocation_failures_total{reason="address_in_use"} 0',
        "# TYPE process_open_fds gauge",
        'portmapper_relay_budget_refusals_total{protocol="udp"} 0',
        "# TYPE process_cpu_seconds_total counter"
      ])
        assert.include(page.split("\n"), line)
      assert.isTrue(page.endsWith("\n"))
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live(
    "counts a defect, an unknown method and a disconnected caller apart from a refusal, with any driver",
    () =>
      Effect.gen(function* () {
        const path = Path.join(yield* temporaryFolder, "p.sock")
        const metrics = makeMetrics()
        const gone = new AbortController()
        const driver = Driver.of({
          mapPorts: () =>
            Effect.andThen(
              Effect.sync(() => gone.abort()),
              Effect.never
            ),
          unmapPorts: () => Effect.die(new Error("x"))
        })
        yield* serveUnix(path, { pages: { "/metrics": metrics.page } }).pipe(
          Effect.provideService(CallObserver, metrics.observe),
          Effect.provideService(Driver, driver)
        )
        yield* Effect.promise(() => request(path, "/PortMapper.UnmapPorts", "{}"))
        yield* Effect.promise(() => request(path, "/PortMapper.ListPorts", "{}"))
        yield* Effect.promise(() =>
          request(path, "/PortMapper.MapPorts", body(1, "172.17.0.2"), {
            signal: gone.signal
          }).catch(() => undefined)
        )
        const page = yield* until(
          Effect.promise(() => request(path, "/metrics", "", { method: "GET" })),
          ({ body }) => body.includes("interrupted")
        )
        assert.deepStrictEqual(samples(page.body), [
          'portmapper_call_duration_seconds_count{method="PortMapper.ListPorts",outcome="unknown_method"} 1',
          'portmapper_call_duration_seconds_count{method="PortMapper.MapPorts",outcome="interrupted"} 1',
          'portmapper_call_duration_seconds_count{method="PortMapper.UnmapPorts",outcome="defect"} 1'
        ])
      })
  )

  it.effect("has traffic in total where there are thousands of mappings, and no total ever falls", () =>
    Effect.gen(function* () {
      const metrics = makeMetrics({ traffic: "totals" })
      const page = (mappings: ReadonlyArray<ListedMapping>) =>
        Effect.map(
          Effect.provideService(
            metrics.page,
            Driver,
            Driver.of({
              mapPorts: () => Effect.succeed([]),
              unmapPorts: () => Effect.void,
              listPorts: Effect.succeed(mappings)
            })
          ),
          ({ body }) => body
        )
      const traffic = (body: string) =>
        samples(body).filter((line) => /^portmapper_(connections|bytes|refused)_total/.test(line))
      const many = Array.from({ length: 4000 }, (_, index) => listed({ frontendPort: 1000 + index }))
      const first = yield* page(many)
      assert.isBelow(first.length, 20_000)
      assert.deepStrictEqual(traffic(first), [
        'portmapper_bytes_total{protocol="tcp",direction="in"} 40000',
        'portmapper_bytes_total{protocol="tcp",direction="out"} 80000',
        'portmapper_connections_total{protocol="tcp"} 12000'
      ])
      // One goes, one can't be counted for once, one has more, one is of another protocol.
      const next = [
        listed({ frontendPort: 1001, connections: undefined }),
        listed({ frontendPort: 1002, connections: 8, refused: { allow: 2, connections: 3 } }),
        listed({ protocol: 17, frontendPort: 1003, connections: 1 })
      ]
      assert.deepStrictEqual(traffic(yield* page(next)), [
        'portmapper_bytes_total{protocol="tcp",direction="in"} 40000',
        'portmapper_bytes_total{protocol="tcp",direction="out"} 80000',
        'portmapper_bytes_total{protocol="udp",direction="in"} 10',
        'portmapper_bytes_total{protocol="udp",direction="out"} 20',
        'portmapper_connections_total{protocol="tcp"} 12005',
        'portmapper_connections_total{protocol="udp"} 1',
        'portmapper_refused_total{protocol="tcp",reason="allow"} 2',
        'portmapper_refused_total{protocol="tcp",reason="connections"} 3'
      ])
      // Another mapping in its place counts from zero.
      const again = [
        listed({ frontendPort: 1001, connections: 4 }),
        listed({ frontendPort: 1002, connections: 1 })
      ]
      assert.include(traffic(yield* page(again)), 'portmapper_connections_total{protocol="tcp"} 12007')
    })
  )
})

const listed = (more: Partial<ListedMapping>): ListedMapping =>
  listedMapping({ connections: 3, bytesIn: 10, bytesOut: 20, ...more })

/** The traffic of a mapping, in `ListPorts` and `/metrics`. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"
import { request } from "../support/http.ts"
import { until } from "../support/until.ts"

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

const silence = { timeoutMillis: silenceMillis }

describeLab("counters of a mapping", [], () => {
  it.live("count connections always, and bytes where the host accounts them", () =>
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
      // The plugin reads them once a second.
      const after = yield* until(
        counted(plugin),
        (seen) => Math.min(seen?.BytesIn ?? 0, seen?.BytesOut ?? 0) > rounds * chunkBytes
      )
      assert.strictEqual(after?.Connections, 2)
      for (const bytes of [after?.BytesIn ?? 0, after?.BytesOut ?? 0]) {
        assert.isBelow(bytes, rounds * chunkBytes * 1.5 + 10_000)
      }
      const { body } = yield* Effect.promise(() => request(plugin.socket, "/metrics", "", { method: "GET" }))
      const labels = 'protocol="tcp",frontend="0.0.0.0:8080",backend="172.31.0.2:80"'
      assert.include(body, `portmapper_connections_total{${labels}} 2\n`)
      assert.include(body, `portmapper_bytes_total{${labels},direction="in"} ${after?.BytesIn}\n`)
    })
  )

  it.live(
    "count the sources that an allow-list refused, until the same mapping is requested with another list",
    () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make({ clientAddresses: ["10.99.0.7/24", "fd99::7/64"] })
        for (const protocol of ["tcp", "udp"] as const)
          for (const on of ["0.0.0.0", "::"]) yield* c1.agent.echo({ protocol, host: on, port: 80 })
        const plugin = yield* Plugin.start(host)
        const ask = (protocol: "tcp" | "udp", to: string, port: number, sourceAddress: string, more = {}) =>
          protocol === "tcp"
            ? Effect.map(
                client.agent.tcp({ host: to, port, sourceAddress, ...more }),
                ({ outcome }) => outcome
              )
            : Effect.map(
                client.agent.udp({ host: to, port, sourceAddress, ...more }),
                ({ outcome }) => outcome
              )
        const refused = (labels: string) =>
          Effect.map(
            Effect.promise(() => request(plugin.socket, "/metrics", "", { method: "GET" })),
            ({ body }) =>
              Number(
                body
                  .split("\n")
                  .find((line) => line.startsWith(`portmapper_refused_total{${labels},`))
                  ?.split(" ")[1]
              )
          )
        let port = 8000
        for (const mode of ["nat", "proxy"])
          for (const protocol of ["tcp", "udp"] as const)
            for (const { any, to, inside, outside, backend } of families) {
              port++
              const cell = `${mode} ${protocol} ${any}`
              const map = (allow: string) =>
                plugin.map([`${protocol} ${any}:${port} ${backend}:80`], {
                  "portmapper.mode": mode,
                  "portmapper.allow": allow
                })
              const counter = `protocol="${protocol}",frontend="${any}:${port}"`
              yield* map("10.99.0.7,fd99::7")
              assert.strictEqual(yield* ask(protocol, to, port, inside), "answered", cell)
              assert.strictEqual(yield* refused(counter), 0, cell)
              assert.notStrictEqual(yield* ask(protocol, to, port, outside, silence), "answered", cell)
              assert.isAbove(yield* refused(counter), 0, cell)
              assert.strictEqual((yield* map("10.99.0.2,fd99::2")).status, 200)
              assert.strictEqual(yield* ask(protocol, to, port, outside), "answered", cell)
              assert.notStrictEqual(yield* ask(protocol, to, port, inside, silence), "answered", cell)
            }
      })
  )
})

const families = [
  { any: "0.0.0.0", to: "10.99.0.1", inside: "10.99.0.7", outside: "10.99.0.2", backend: "172.31.0.2" },
  { any: "[::]", to: "fd99::1", inside: "fd99::7", outside: "fd99::2", backend: "[fd66::2]" }
] as const

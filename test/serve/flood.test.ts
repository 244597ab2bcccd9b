/** Floods of a relayed port by clients that nobody let in: calls and other ports go on. */
import { readFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import { flood } from "../lab/Flood.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { request } from "../support/http.ts"

const own = Number(/^Max open files +\d+ +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1])

/** A sample of the page of metrics. */
const sample = (plugin: Plugin.Plugin, name: string) =>
  Effect.map(
    Effect.promise(() => request(plugin.socket, "/metrics", "", { method: "GET" })),
    ({ body }) => {
      const line = body.split("\n").find((line) => line.startsWith(`${name} `))
      return Number(line?.slice(name.length + 1))
    }
  )

const refusals = (plugin: Plugin.Plugin, protocol: "tcp" | "udp") =>
  sample(plugin, `portmapper_relay_budget_refusals_total{protocol="${protocol}"}`)

const until = <E>(look: Effect.Effect<boolean, E>) =>
  Effect.gen(function* () {
    while (!(yield* look)) yield* Effect.sleep(50)
  })

describeLab("a flood of a relayed port", [], () => {
  // A larger limit than most machines have is not reached by so few, nor by the packets.
  const lacking = own <= 20_000 ? (["tcp"] as const) : []
  for (const [title, limit, connections, sources, refused] of [
    ["512 descriptors", 512, 700, 600, ["tcp", "udp"]],
    ["1,024 descriptors", 1024, 1300, 1200, ["tcp", "udp"]],
    ["the machine's own limit", own, 10_300, 6000, lacking]
  ] as const)
    it.live(`leaves calls and other ports their descriptors, of ${title}`, () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        for (const protocol of ["tcp", "udp"] as const) yield* c1.agent.echo({ protocol, port: 80 })
        const plugin = yield* Plugin.start(host, {
          wrapper: ["prlimit", `--nofile=${limit}:${limit}`],
          arguments: ["--udp-idle", "5s"]
        })
        for (const frontend of ["tcp [::]:8080", "tcp [::]:8081", "udp [::]:8082"])
          assert.strictEqual((yield* plugin.map([`${frontend} 172.31.0.2:80`])).status, 200)
        const answers = (protocol: "tcp" | "udp", port: number) =>
          Effect.gen(function* () {
            const asked = { host: "fd99::1", port, timeoutMillis: 10_000 }
            const { agent } = client
            return (yield* protocol === "tcp" ? agent.tcp(asked) : agent.udp(asked)).outcome
          })
        assert.strictEqual(yield* answers("tcp", 8081), "answered")
        const before = yield* sample(plugin, "process_open_fds")
        assert.strictEqual(yield* sample(plugin, "process_max_fds"), limit)

        const packets = yield* flood(client, { protocol: "udp", host: "fd99::1", port: 8082, count: sources })
        const idle = yield* flood(client, {
          protocol: "tcp",
          host: "fd99::1",
          port: 8080,
          count: connections
        })
        yield* packets.sent
        yield* idle.sent
        for (const protocol of refused)
          yield* until(Effect.map(refusals(plugin, protocol), (count) => count > 0))

        for (const port of [9000, 9001, 9002]) {
          const more = yield* plugin.map([
            `tcp 0.0.0.0:${port} 172.31.0.2:80`,
            `tcp [::]:${port} [fd66::2]:80`
          ])
          assert.strictEqual(more.status, 200, more.error)
          assert.strictEqual((yield* plugin.unmap(more.bindings)).status, 200)
        }
        assert.strictEqual(yield* answers("tcp", 8081), "answered")
        assert.isBelow(yield* sample(plugin, "process_open_fds"), limit)

        yield* packets.stop
        yield* idle.stop
        for (const [protocol, port] of [
          ["tcp", 8080],
          ["tcp", 8081],
          ["udp", 8082]
        ] as const)
          assert.strictEqual(yield* answers(protocol, port), "answered", `${protocol} ${port}`)
        yield* until(Effect.map(sample(plugin, "process_open_fds"), (count) => count <= before + 8))
        if (refused.length === 0) return
        yield* plugin.process.waitForLine("descriptors suffice again", { timeoutMillis: 60_000 })
        const told = plugin.process.lines("stderr").filter((line) => line.includes("descriptors run short"))
        assert.strictEqual(told.length, 1)
        assert.match(told[0] ?? "", new RegExp(`of ${limit} in use`))
      })
    )

  it.live("of its own TCP port leaves its Unix socket and other ports their descriptors", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      const plugin = yield* Plugin.start(host, {
        folder,
        wrapper: ["prlimit", "--nofile=512:512"],
        arguments: ["--tcp", "127.0.0.1:7000", "--spec-dir", folder]
      })
      const before = yield* sample(plugin, "process_open_fds")
      const idle = yield* flood(host, { protocol: "tcp", host: "127.0.0.1", port: 7000, count: 600 })
      yield* idle.sent
      assert.isAtMost(yield* sample(plugin, "process_open_fds"), before + 40)
      assert.strictEqual((yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])).status, 200)
      yield* idle.stop
      yield* until(Effect.map(sample(plugin, "process_open_fds"), (count) => count <= before + 8))
      const payload = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:7000\r\n\r"
      const { answer } = yield* host.agent.tcp({ host: "127.0.0.1", port: 7000, payload })
      assert.match(answer?.text ?? "", /^HTTP\/1.1 200/)
    })
  )
})

/** The limits of a port, in the kernel and in the relay, changed while it is published. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { request } from "../support/http.ts"
import { until } from "../support/until.ts"

interface Listed {
  readonly Refused: Readonly<Record<string, number | null>> | null
}

describeLab("the limits of a port", [], () => {
  it.live("are enforced by the kernel or the relay, counted by reason, and follow the labels", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const first = yield* Plugin.start(host)
      const to = { host: "10.99.0.1", port: 8080 }
      const map = (plugin: Plugin.Plugin, labels: Record<string, string>) =>
        Effect.map(plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"], labels), ({ status, error }) =>
          assert.strictEqual(status, 200, error)
        )
      const served = (times: number, timeoutMillis = 800) =>
        Effect.map(
          Effect.all(
            Array.from({ length: times }, () => client.agent.tcp({ ...to, timeoutMillis })),
            { concurrency: "unbounded" }
          ),
          (answers) => answers.filter(({ outcome }) => outcome === "answered").length
        )
      const refused = Effect.fnUntraced(function* (plugin: Plugin.Plugin) {
        const { body } = yield* plugin.call("ListPorts", {})
        const [listed] = (JSON.parse(body) as { readonly Mappings: ReadonlyArray<Listed> }).Mappings
        const page = yield* Effect.promise(() => request(plugin.socket, "/metrics", "", { method: "GET" }))
        const samples = [...page.body.matchAll(/^portmapper_refused_total\{.*reason="(.*)"\} (\d+)$/gm)]
        return {
          listed: listed?.Refused,
          samples: Object.fromEntries(samples.map(([, reason, count]) => [reason, Number(count)]))
        }
      })

      yield* map(first, { "portmapper.rate": "1/s" })
      assert.isBelow(yield* served(20), 20)
      const byKernel = yield* refused(first)
      assert.isAbove(byKernel.samples["rate"] ?? 0, 0)
      assert.deepStrictEqual(byKernel.listed, {
        ...{ Allow: null, Connections: null, RatePerSource: null },
        Rate: byKernel.samples["rate"] ?? null
      })
      // A kill leaves the kernel's limit, and the next process counts on.
      yield* first.process.kill("SIGKILL")
      yield* first.process.wait()
      assert.isBelow(yield* served(20), 20)
      const second = yield* Plugin.start(host, { folder: first.folder })
      assert.isAbove((yield* refused(second)).samples["rate"] ?? 0, byKernel.samples["rate"] ?? 0)
      yield* map(second, { "portmapper.rate": "1000/s" })
      assert.strictEqual(yield* served(20), 20)
      yield* map(second, {})
      assert.strictEqual(yield* served(20), 20)
      assert.deepStrictEqual(yield* refused(second), { listed: null, samples: {} })

      yield* map(second, { "portmapper.connections": "1" })
      const transfer = yield* client.agent.transfer({ ...to, chunkBytes: 10, intervalMillis: 1 })
      yield* transfer.advance(3)
      assert.strictEqual(yield* served(5), 0)
      assert.deepStrictEqual((yield* refused(second)).samples, { connections: 5 })
      yield* map(second, { "portmapper.connections": "2" })
      yield* until(served(1), (count) => count === 1)
      yield* transfer.advance(3)
      yield* transfer.stop
    })
  )
})

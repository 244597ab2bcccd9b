/** What clients notice when a plugin is killed, restarted, taken over, or loses its table: their connections go on. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"
import { until } from "../support/until.ts"

const published = { host: "10.99.0.1", port: 8080 }
const element = { any4: ["tcp . 8080 : 172.31.0.2 . 80"], hairpin_any4: ["tcp . 8080 . 172.31.0.2"] }

describeLab("a redirection that another process removes, on an older kernel", [], () => {
  it.live("is back soon, and at once where it is asked for again", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const plugin = yield* Plugin.start(host, { env: Plugin.importing("onOlderKernel") })
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
      const answered = Effect.map(
        client.agent.tcp({ ...published, timeoutMillis: silenceMillis, close: "reset" }),
        ({ outcome }) => outcome === "answered"
      )
      yield* host.check("nft", ["flush", "map", "inet", "portmapper", "any4"])
      yield* until(answered)
      assert.deepStrictEqual(yield* contents(host), element)
      assert.include(
        plugin.process.lines("stderr").join(),
        "someone changed the table; put back with 1 mappings"
      )
      yield* host.check("nft", ["flush", "map", "inet", "portmapper", "any4"])
      assert.strictEqual((yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])).status, 200)
      assert.isTrue(yield* answered)
    })
  )
})

describeLab("a redirected connection", [], () => {
  for (const [kernel, env] of [
    ["this kernel", {}],
    ["an older kernel", Plugin.importing("onOlderKernel")]
  ] as const)
    it.live(`goes on over a kill, a restart, a takeover and a flush of all tables, on ${kernel}`, () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const first = yield* Plugin.start(host, { env })
        assert.strictEqual((yield* first.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])).status, 200)
        const transfer = yield* client.agent.transfer(published)
        yield* transfer.advance(5)

        yield* first.process.kill("SIGKILL")
        yield* first.process.wait()
        yield* transfer.advance(5)
        const whileDead = yield* client.agent.tcp({ ...published, close: "reset" })
        assert.strictEqual(whileDead.outcome, "answered")

        const { folder } = first
        let isServing = false
        const knocking = yield* Effect.forkChild(
          Effect.gen(function* () {
            const outcomes: Array<string> = []
            while (!isServing) {
              const { outcome } = yield* client.agent.tcp({
                ...published,
                close: "reset"
              })
              outcomes.push(outcome)
            }
            return outcomes
          }),
          { startImmediately: true }
        )
        const second = yield* Plugin.start(host, { folder, env })
        isServing = true
        const outcomes = yield* Fiber.join(knocking)
        assert.deepStrictEqual([...new Set(outcomes)], ["answered"], `${outcomes.length} connections`)
        yield* transfer.advance(5)
        assert.deepStrictEqual(yield* contents(host), element)

        const third = yield* Plugin.start(host, {
          folder,
          env,
          arguments: ["--takeover"]
        })
        assert.deepStrictEqual(yield* second.process.wait(), {
          code: 0,
          signal: null
        })
        yield* transfer.advance(5)
        assert.deepStrictEqual(yield* contents(host), element)

        // Where the flush removes the table: until it is back.
        yield* host.check("nft", ["flush", "ruleset"])
        const asked = client.agent.tcp({ ...published, timeoutMillis: silenceMillis, close: "reset" })
        if (kernel === "this kernel") assert.strictEqual((yield* asked).outcome, "answered")
        else yield* until(asked, ({ outcome }) => outcome === "answered")
        assert.deepStrictEqual(yield* contents(host), element)
        const { state, first: answer } = yield* transfer.advance(5)
        assert.deepStrictEqual({ state, who: answer?.who }, { state: "open", who: "c1" })
        const said = third.process
          .lines("stderr")
          .filter((line) => line.includes("someone removed the table; put back with 1 mappings"))
        assert.strictEqual(said.length, kernel === "this kernel" ? 0 : 1)
      })
    )
})

/** What clients notice of a plugin that is killed, started again, taken over from, and robbed of its table: their connections go on. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"
import { until } from "../support/until.ts"

const published = { host: "10.99.0.1", port: 8080 }
/** Of a busy machine; a connection that is reset fails at once. */
const element = { any4: ["tcp . 8080 : 172.31.0.2 . 80"] }

describeLab("a redirected connection", [], () => {
  it.live(
    "goes on over a kill, a restart, a takeover and a flush of the table; new ones are served throughout, and soon after the flush",
    () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const first = yield* Plugin.start(host)
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
        const second = yield* Plugin.start(host, { folder })
        isServing = true
        const outcomes = yield* Fiber.join(knocking)
        assert.deepStrictEqual([...new Set(outcomes)], ["answered"], `${outcomes.length} connections`)
        yield* transfer.advance(5)
        assert.deepStrictEqual(yield* contents(host), element)

        const third = yield* Plugin.start(host, {
          folder,
          arguments: ["--takeover"]
        })
        assert.deepStrictEqual(yield* second.process.wait(), {
          code: 0,
          signal: null
        })
        yield* transfer.advance(5)
        assert.deepStrictEqual(yield* contents(host), element)

        yield* host.check("nft", ["delete", "table", "inet", "portmapper"])
        const flushed = performance.now()
        yield* until(
          client.agent.tcp({ ...published, timeoutMillis: silenceMillis, close: "reset" }),
          ({ outcome }) => outcome === "answered"
        )
        console.log(`served again ${Math.round(performance.now() - flushed)} ms after the flush (aim: 2,000)`)
        assert.deepStrictEqual(yield* contents(host), element)
        const { state, first: answer } = yield* transfer.advance(5)
        assert.deepStrictEqual({ state, who: answer?.who }, { state: "open", who: "c1" })
        const said = third.process
          .lines("stderr")
          .filter((line) => line.includes("someone removed the table"))
        assert.strictEqual(said.length, 1)
        assert.match(said[0] ?? "", /put back with 1 mappings/)
      })
  )
})

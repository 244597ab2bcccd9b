/**
 * A real Engine's recorded requests, replayed against the real plugin: for each request the exact answer, and after
 * each the sockets held, the kernel's table, and which container TCP and UDP clients outside reach.
 */
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { lacking } from "../lab/Capabilities.ts"
import { describeLab } from "../lab/describeLab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { until } from "../support/until.ts"
import recorded from "../vectors/engine.json" with { type: "json" }
import { expected } from "./engineAnswers.ts"
import { makeReplay, replayLab } from "./engineReplay.ts"

/** A map declared constant refuses to delete elements. */
const freezeTable = (host: Namespace) =>
  Effect.flatMap(tableText(host), (text) =>
    host.check("nft", ["-f", "-"], {
      input: `delete table inet portmapper\n${text.replace("map any4 {", "map any4 {\n flags constant")}`
    })
  )

/** Waits until the plugin finds its table gone, and puts it back. */
const waitForRepair = (host: Namespace, mappings: number) =>
  until(contents(host), ({ any4 }) => any4?.length === mappings)

const tableText = (host: Namespace) => host.check("nft", ["list", "table", "inet", "portmapper"])

describeLab("an Engine's recorded requests", [], () => {
  it.live("are answered, and the ports they publish are reachable", () =>
    Effect.gen(function* () {
      const made = yield* replayLab
      const { host } = made
      const refused = join(yield* Plugin.temporaryFolder, "refused")
      const plugin = yield* Plugin.start(host, {
        env: { ...Plugin.importing("onOlderKernel"), LOADS_REFUSED: refused }
      })
      const { live, send, compareHost } = makeReplay(made)
      const [first = 0] = (yield* host.check("cat", ["/proc/sys/net/ipv4/ip_local_port_range"]))
        .split(/\s+/)
        .map(Number)
      const expectedAnswers = expected(first, lacking(["sctp"]).length === 0)

      for (const { scenario, requests } of recorded.scenarios) {
        const answers = expectedAnswers[scenario] ?? []
        assert.strictEqual(answers.length, requests.length, scenario)
        let step = 0
        for (const asked of requests) {
          const title = `${scenario} ${++step}`
          if (scenario === "unmap500" && step === 3) {
            writeFileSync(refused, "")
            yield* freezeTable(host)
          }
          const answer = yield* send(plugin, asked)
          const wanted = answers[step - 1]
          if (wanted instanceof RegExp) assert.match(String(answer), wanted, title)
          else assert.deepStrictEqual(answer, wanted, title)
          if (scenario !== "unmap500" || step < 3) yield* compareHost(plugin, title)
        }
        if (scenario === "unmap500") {
          rmSync(refused)
          yield* host.check("nft", ["delete", "table", "inet", "portmapper"])
          yield* waitForRepair(host, live.size)
        }
      }
    })
  )

  it.live(
    "get the same answers from a plugin that is killed before each of them",
    () =>
      Effect.gen(function* () {
        const requests = [
          "run-p-8080-80",
          "restart-8080-80",
          "rm-f-8080-80",
          "daemon-restart-no-live-restore",
          "live-restore",
          "live-restore-kill9",
          "kill9-no-live-restore"
        ].flatMap((name) => recorded.scenarios.find(({ scenario }) => scenario === name)?.requests ?? [])
        assert.strictEqual(requests.length, 41)

        const whole = yield* replayLab
        const undisturbed = yield* Plugin.start(whole.host)
        const replay = makeReplay(whole)
        const wanted = yield* Effect.forEach(requests, (asked) => replay.send(undisturbed, asked))

        const made = yield* replayLab
        const folder = yield* Plugin.temporaryFolder
        const { send, compareHost } = makeReplay(made)
        const life = Effect.fnUntraced(function* (index: number) {
          const plugin = yield* Plugin.start(made.host, { folder })
          const title = `request ${index + 1}`
          yield* compareHost(plugin, `restored before ${title}`)
          const asked = requests[index]
          if (asked !== undefined)
            assert.deepStrictEqual(yield* send(plugin, asked), wanted[index], `${title} ${asked.path}`)
          yield* plugin.process.kill("SIGKILL")
          yield* plugin.process.wait()
        })
        for (let index = 0; index <= requests.length; index++) yield* Effect.scoped(life(index))
      }),
    600_000
  )
})

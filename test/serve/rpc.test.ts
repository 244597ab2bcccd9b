/**
 * A script of ten lines in another language publishes a port over `portmapper rpc`, with its own mapper or through a
 * plugin.
 */
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { wireEntry } from "../support/requests.ts"

const pathOf = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url))

const script = pathOf("../../examples/session.py")
const rpc = [process.execPath, pathOf("../../adapters/cli/main.ts"), "rpc"]

const request = JSON.stringify({ Reqs: [wireEntry("tcp 0.0.0.0:8080-8090 172.31.0.2:80")] })

/** The effects of the script, seen by a client outside; returns once the session has ended. */
const publishes = Effect.fnUntraced(function* (
  { host, client, c1 }: Lab.Lab,
  command: ReadonlyArray<string>
) {
  yield* c1.agent.echo({ protocol: "tcp", port: 80 })
  const asked = Effect.map(
    client.agent.tcp({ host: "10.99.0.1", port: 8080, close: "reset" }),
    ({ outcome, answer }) => answer?.who ?? outcome
  )
  assert.strictEqual(yield* asked, "refused")
  const running = yield* host.spawn("python3", [script, request, ...command], { label: "session.py" })
  yield* running.waitForLine("published 8080")
  assert.strictEqual(yield* asked, "c1")
  yield* running.write("\n")
  yield* running.waitForLine("unpublished {}")
  assert.deepStrictEqual(yield* running.wait(), { code: 0, signal: null })
  assert.strictEqual(yield* asked, "refused")
})

describeLab("a script over portmapper rpc", ["python"], () => {
  it.live("publishes by its own session", () =>
    Effect.gen(function* () {
      const lab = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      yield* publishes(lab, [...rpc, "--state", join(folder, "state")])
      assert.deepStrictEqual(yield* contents(lab.host), {})
    })
  )

  it.live("publishes through a running plugin", () =>
    Effect.gen(function* () {
      const lab = yield* Lab.make()
      const plugin = yield* Plugin.start(lab.host)
      yield* publishes(lab, [...rpc, "--connect", plugin.socket])
      assert.deepStrictEqual(yield* contents(lab.host), {})
    })
  )
})

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
import { until } from "../support/until.ts"

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

  it.live("leaves nothing behind where it is hung up or killed, with its own mapper or a plugin's", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const elements = { any4: ["tcp . 8080 : 172.31.0.2 . 80"], hairpin_any4: ["tcp . 8080 . 172.31.0.2"] }
      const line = `{"jsonrpc":"2.0","id":1,"method":"MapPorts","params":${request}}\n`
      const session = Effect.fnUntraced(function* (...options: ReadonlyArray<string>) {
        const [command = "", ...args] = rpc
        const running = yield* host.spawn(command, [...args, ...options])
        yield* running.write(line)
        yield* running.waitForLine('"FrontendPort":8080')
        assert.deepStrictEqual(yield* contents(host), elements)
        return running
      })
      const own = ["--state", join(yield* Plugin.temporaryFolder, "state")]
      const hungUp = yield* session(...own)
      yield* hungUp.kill("SIGHUP")
      assert.deepStrictEqual(yield* hungUp.wait(), { code: 0, signal: null })
      assert.deepStrictEqual(yield* contents(host), {})
      const killed = yield* session(...own)
      yield* killed.kill("SIGKILL")
      yield* killed.wait()
      const next = yield* host.spawn(rpc[0] ?? "", [...rpc.slice(1), ...own])
      yield* next.write('{"jsonrpc":"2.0","id":1,"method":"ListPorts"}\n')
      yield* next.waitForLine('"Mappings":[]')
      assert.deepStrictEqual(yield* contents(host), {})
      yield* next.closeInput
      yield* next.wait()

      const plugin = yield* Plugin.start(host)
      const connected = yield* session("--connect", plugin.socket)
      const successor = yield* Plugin.start(host, { folder: plugin.folder, arguments: ["--takeover"] })
      yield* plugin.process.wait()
      assert.deepStrictEqual(yield* contents(host), elements)
      yield* connected.kill("SIGKILL")
      yield* until(contents(host), (sets) => Object.keys(sets).length === 0)
      const abandoned = yield* session("--connect", plugin.socket)
      yield* successor.process.kill("SIGTERM")
      assert.deepStrictEqual(yield* abandoned.wait(), { code: 1, signal: null })
      assert.deepStrictEqual(yield* contents(host), {})
      assert.include(
        abandoned.lines("stderr").at(-1),
        `portmapper: the plugin at ${plugin.socket} closed the connection, and with it this session`
      )
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

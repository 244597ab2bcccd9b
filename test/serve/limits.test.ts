/** The real plugin where the host's resources are scarce, or where it is used in unintended ways. */
import { existsSync, statSync } from "node:fs"
import { isDeepStrictEqual } from "node:util"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { descriptorKinds, listening } from "../lab/Probe.ts"
import { until } from "../support/until.ts"

describeLab("the plugin and its host's limits", [], () => {
  it.live("survives the exhaustion of its 512 descriptors with a clear error, and keeps serving", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const plugin = yield* Plugin.start(host, { wrapper: ["prlimit", "--nofile=512:512"] })
      // The relay's thread and the filters of either family are made for the first route, and stay.
      const first = ["tcp 0.0.0.0:9999 172.31.0.2:80", "tcp [::]:9999 [fd66::2]:80"]
      yield* plugin.unmap((yield* plugin.map(first)).bindings)
      const before = yield* descriptorKinds(plugin.process.pid)
      const granted: Array<Plugin.WireBinding> = []
      let refusal: Plugin.Answered | undefined
      for (let port = 10_000; refusal === undefined && port < 10_600; port++) {
        const mapped = yield* plugin.map([
          `tcp 0.0.0.0:${port} 172.31.0.2:80`,
          `tcp [::]:${port} [fd66::2]:80`
        ])
        if (mapped.status === 200) granted.push(...mapped.bindings)
        else refusal = mapped
      }
      assert.strictEqual(refusal?.status, 500)
      assert.match(refusal?.error ?? "", /^bind for \S+ failed: too many open files/)
      assert.isAbove(granted.length, 400)
      const held = yield* listening(host, { pid: plugin.process.pid })
      assert.strictEqual(held.length, granted.length)
      assert.strictEqual((yield* plugin.unmap(granted)).status, 200)
      assert.deepStrictEqual(yield* contents(host), {})
      yield* eventually(descriptorKinds(plugin.process.pid), before)
      assert.strictEqual((yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])).status, 200)
    })
  )

  it.live(
    "publishes and releases ten thousand ports in one table, each of them relayed too, with any soft limit",
    () =>
      Effect.gen(function* () {
        const { host, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", port: 80 })
        const plugin = yield* Plugin.start(host, { wrapper: ["prlimit", "--nofile=1024:"] })
        const ports = Array.from({ length: 10_000 }, (_, index) => 10_000 + index)
        const map = (port: number) =>
          Effect.map(plugin.map([`tcp 0.0.0.0:${port} 172.31.0.2:80`]), (mapped) => {
            assert.strictEqual(mapped.status, 200, mapped.error)
            return mapped.bindings
          })
        const bindings = (yield* Effect.forEach(ports, map, { concurrency: 8 })).flat()
        assert.strictEqual((yield* contents(host))["any4"]?.length, 10_000)
        // The relay serves loopback traffic.
        for (const port of [10_000, 13_333, 19_999]) {
          const { answer } = yield* host.agent.tcp({ host: "127.0.0.1", port })
          assert.strictEqual(answer?.who, "c1")
        }
        for (let first = 0; first < bindings.length; first += 2500)
          assert.strictEqual((yield* plugin.unmap(bindings.slice(first, first + 2500))).status, 200)
        assert.deepStrictEqual(yield* contents(host), {})
      })
  )

  it.live("ends on SIGTERM, removes its socket, and leaves the ports to the successor", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const plugin = yield* Plugin.start(host)
      assert.strictEqual(statSync(plugin.socket).mode & 0o777, 0o660)
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
      yield* plugin.process.kill("SIGTERM")
      assert.deepStrictEqual(yield* plugin.process.wait(), { code: 0, signal: null })
      assert.isFalse(existsSync(plugin.socket))
      assert.deepStrictEqual(yield* contents(host), {
        any4: ["tcp . 8080 : 172.31.0.2 . 80"],
        hairpin_any4: ["tcp . 8080 . 172.31.0.2"]
      })
    })
  )

  it.live("releases everything at the end with the option for that", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const plugin = yield* Plugin.start(host, { arguments: ["--release-on-exit"] })
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80", "udp [::]:8080 [fd66::2]:80"])
      yield* plugin.process.kill("SIGTERM")
      yield* plugin.process.wait()
      assert.deepStrictEqual(yield* contents(host), {})
    })
  )

  it.live("takes over from one that was killed, and refuses to run beside a running one", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const first = yield* Plugin.start(host)
      const again = ["adapters/cli/main.ts", "serve", "--socket", first.socket]
      const sameState = yield* host.exec(process.execPath, [...again, "--state", `${first.folder}/state`])
      assert.strictEqual(sameState.code, 1)
      const holder = `process ${first.process.pid} \\(node .*main\\.ts serve .*\\)`
      assert.match(
        sameState.stderr,
        new RegExp(
          `^portmapper: ${first.folder}/state is in use by ${holder}; stop it first, or add --takeover to replace it\n$`
        )
      )
      const sameSocket = yield* host.exec(process.execPath, [...again, "--state", `${first.folder}/other`])
      assert.strictEqual(sameSocket.code, 1)
      assert.match(
        sameSocket.stderr,
        new RegExp(
          `^portmapper: ${holder} keeps the table inet portmapper of this network namespace; stop it first, or use --takeover with its --state to replace it\n$`
        )
      )
      yield* first.process.kill("SIGKILL")
      yield* first.process.wait()
      assert.isTrue(existsSync(first.socket))
      const second = yield* Plugin.start(host, { folder: first.folder })
      assert.strictEqual((yield* second.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])).status, 200)
    })
  )
})

/** A close on the other side takes a moment to arrive here. */
const eventually = <A, E>(look: Effect.Effect<A, E>, wanted: A) =>
  until(look, (seen) => isDeepStrictEqual(seen, wanted))

/** The guard of the plugin's own port on a loopback address: present exactly as long as a process listens. */
import { assert, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { elements } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { LabError } from "../lab/Process.ts"

const guards = (host: Namespace) => elements(host, "loopback4")

/** The guarded ports, once they are as expected; the table may be gone meanwhile. */
const eventually = Effect.fnUntraced(function* (
  host: Namespace,
  wanted: ReadonlyArray<string>
): Effect.fn.Return<void, LabError> {
  const deadline = performance.now() + 30_000
  while (true) {
    const found = yield* Effect.result(guards(host))
    if (found._tag === "Success" && found.success.join() === wanted.join()) return
    if (performance.now() > deadline)
      return yield* new LabError({ operation: "guards", detail: JSON.stringify(found) })
    yield* Effect.sleep(20)
  }
})

const start = (host: Namespace, folder: string, tcp: string, ...more: ReadonlyArray<string>) =>
  Plugin.start(host, { folder, arguments: ["--tcp", tcp, "--spec-dir", folder, ...more] })

describeLab("the plugin's own port on a loopback address", [], () => {
  const test = (title: string, body: Effect.Effect<void, LabError, Scope.Scope>) => it.live(title, () => body)

  test(
    "is guarded beside published ones, also after a repair, and no longer after a stop",
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      const plugin = yield* start(host, folder, "127.0.0.1:7000")
      assert.deepStrictEqual(yield* guards(host), ["127.0.0.1 . tcp . 7000"])
      yield* plugin.map(["tcp 127.0.0.1:8080 172.31.0.2:80"])
      const both = ["127.0.0.1 . tcp . 7000", "127.0.0.1 . tcp . 8080"]
      assert.deepStrictEqual(yield* guards(host), both)
      yield* host.check("nft", ["flush", "ruleset"])
      yield* eventually(host, both)
      yield* plugin.process.stop
      assert.deepStrictEqual(yield* guards(host), ["127.0.0.1 . tcp . 8080"])
    })
  )

  test(
    "is guarded where the system chooses it, and the port from before a kill no longer is",
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      const first = yield* start(host, folder, "[::1]:0")
      const [before = "none"] = yield* elements(host, "loopback6")
      assert.match(before, /^::1 \. tcp \. \d+$/)
      yield* first.process.kill("SIGKILL")
      yield* first.process.wait()
      assert.deepStrictEqual(yield* elements(host, "loopback6"), [before])
      yield* start(host, folder, "127.0.0.1:7000")
      assert.deepStrictEqual(yield* elements(host, "loopback6"), [])
      assert.deepStrictEqual(yield* guards(host), ["127.0.0.1 . tcp . 7000"])
    })
  )

  test(
    "is guarded all through a takeover",
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      const first = yield* start(host, folder, "127.0.0.1:7000")
      yield* first.map(["tcp 127.0.0.1:8080 172.31.0.2:80"])
      const monitor = yield* host.spawn("nft", ["monitor", "destroy"])
      const second = yield* start(host, folder, "127.0.0.1:7000", "--takeover")
      yield* second.map(["tcp 127.0.0.1:8081 172.31.0.2:80"])
      assert.strictEqual(
        (yield* second.unmap((yield* second.map(["tcp 127.0.0.1:8082 172.31.0.2:80"])).bindings)).status,
        200
      )
      yield* monitor.waitForLine(/127\.0\.0\.1 \. (tcp|6) \. 8082/, { timeoutMillis: 20_000 })
      assert.deepStrictEqual(
        monitor.lines("stdout").filter((line) => line.includes("7000")),
        []
      )
      yield* first.process.wait({ timeoutMillis: 60_000 })
      assert.deepStrictEqual(yield* guards(host), [
        "127.0.0.1 . tcp . 7000",
        "127.0.0.1 . tcp . 8080",
        "127.0.0.1 . tcp . 8081"
      ])
    })
  )

  test(
    "is guarded no longer where a successor does not listen on it",
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      yield* start(host, folder, "127.0.0.1:7000")
      yield* start(host, folder, "127.0.0.1:7001", "--takeover", "--name", "other")
      assert.deepStrictEqual(yield* guards(host), ["127.0.0.1 . tcp . 7001"])
    })
  )
})

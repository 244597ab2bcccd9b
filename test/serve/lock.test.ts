/**
 * The lock on the kernel's table, on this kernel and an older one: only one process holds it, and only one that may
 * change the table.
 */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents, tables } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"

const main = "adapters/cli/main.ts"
const startMillis = 60_000
const web = "tcp 0.0.0.0:8080 172.31.0.2:80"
const element = { any4: ["tcp . 8080 : 172.31.0.2 . 80"], hairpin_any4: ["tcp . 8080 . 172.31.0.2"] }
const support = (name: string): string => fileURLToPath(new URL(`../support/${name}`, import.meta.url))

const portmapper = (host: Namespace, env: Readonly<Record<string, string>>, ...args: ReadonlyArray<string>) =>
  host.exec(process.execPath, [main, ...args], { env })

const keeps = ({ process: { pid } }: Plugin.Plugin): RegExp =>
  new RegExp(
    `^portmapper: (reset refused: )?process ${pid} \\(node .*serve .*\\) keeps the table inet portmapper`
  )

for (const [kernel, env] of [
  ["this kernel", {}],
  ["an older kernel", { ...Plugin.importing("onOlderKernel") }]
] as const)
  describeLab(`the lock on ${kernel}`, [], () => {
    const start = (host: Namespace, options: Plugin.PluginOptions = {}) =>
      Plugin.start(host, { startMillis, env, ...options })

    it.live("keeps a second plugin out, also from another mount namespace, and names the first", () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const first = yield* start(host)
        yield* first.map([web])
        const folder = yield* Plugin.temporaryFolder
        const other = ["--socket", join(folder, "a.sock"), "--state", join(folder, "state")]
        const beside = yield* portmapper(host, env, "serve", ...other)
        assert.strictEqual(beside.code, 1)
        assert.match(beside.stderr, keeps(first))
        assert.match(beside.stderr, /stop it first, or use --takeover with its --state to replace it\n$/)
        const mounted = yield* host.exec(
          "unshare",
          [
            "--mount",
            "sh",
            "-ec",
            'mount -t tmpfs none /run; exec "$@"',
            "sh",
            process.execPath,
            main,
            "serve"
          ],
          { env }
        )
        assert.strictEqual(mounted.code, 1)
        assert.match(mounted.stderr, keeps(first))
        assert.deepStrictEqual(yield* contents(host), element)
        assert.strictEqual((yield* first.map([web])).status, 200)
      })
    )

    it.live("is not available to a process that may not change tables", () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        // The name of the former lock.
        const squatter = yield* host.spawn(process.execPath, [
          "-e",
          `process.setgid(65534); process.setuid(65534)
           require("net").createServer().listen("\\0portmapper-nat", () => console.log("bound"))`
        ])
        yield* squatter.waitForLine("bound")
        const rootless = yield* start(host, {
          wrapper: ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        })
        assert.deepStrictEqual(yield* tables(host), [])
        const plugin = yield* start(host)
        assert.include(plugin.process.lines("stderr").join("\n"), 'message="mode nat"')
        assert.strictEqual((yield* rootless.map(["tcp 0.0.0.0:8081 172.31.0.2:80"])).status, 200)
        assert.strictEqual((yield* plugin.map([web])).status, 200)
      })
    )

    it.live("is never free in a takeover, whatever its outcome, and free at the end", () =>
      Effect.gen(function* () {
        const { host, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const first = yield* start(host)
        yield* first.map([web])
        const racer = yield* host.spawn(process.execPath, [support("lockRacer.ts")])
        yield* racer.waitForLine("racing", { timeoutMillis: startMillis })
        const half = yield* host.spawn(process.execPath, [
          ...[support("halfSuccessor.ts"), join(first.folder, "state", "handover.sock"), "got everything"]
        ])
        yield* half.wait({ timeoutMillis: startMillis })
        assert.strictEqual((yield* first.map([web])).status, 200)
        const second = yield* start(host, { folder: first.folder, arguments: ["--takeover"] })
        assert.strictEqual((yield* second.map([web])).status, 200)
        yield* first.process.wait({ timeoutMillis: startMillis })
        // The lock went from one to the other without a gap.
        assert.isFalse(racer.lines("stdout").includes("won"))
        yield* second.process.kill("SIGKILL")
        yield* racer.waitForLine("won", { timeoutMillis: startMillis })
      })
    )

    it.live("makes reset refuse, which names the holder and removes nothing", () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const plugin = yield* start(host)
        yield* plugin.map([web])
        const folder = yield* Plugin.temporaryFolder
        const reset = portmapper(
          ...([host, env, "reset", "--yes", "--state", join(folder, "other")] as const),
          ...["--socket", join(folder, "other.sock"), "--spec-dir", folder]
        )
        const refused = yield* reset
        assert.deepStrictEqual([refused.code, refused.stdout], [1, ""])
        assert.match(refused.stderr, keeps(plugin))
        assert.match(refused.stderr, /; stop it first\n$/)
        assert.deepStrictEqual(yield* contents(host), element)
        yield* plugin.process.kill("SIGKILL")
        yield* plugin.process.wait()
        assert.deepStrictEqual(yield* contents(host), element)
        assert.deepStrictEqual(yield* reset, {
          code: 0,
          signal: null,
          stdout: "removed nftables table inet portmapper\n",
          stderr: ""
        })
        assert.deepStrictEqual(yield* tables(host), [])
      })
    )

    it.live(
      "allows a new definition of the table, after a kill and in a takeover, unnoticed by clients",
      () =>
        Effect.gen(function* () {
          const { host, client, c1 } = yield* Lab.make()
          yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
          const comment = Effect.map(
            host.check("nft", ["list", "table", "inet", "portmapper"]),
            (text) => /definition \w+/.exec(text)?.[0]
          )
          const marked = (mark: string) => ["--accept-fwmark", `${mark}/${mark}`]
          const first = yield* start(host)
          yield* first.map([web])
          const older = yield* comment
          let isOver = false
          const knocking = yield* Effect.forkChild(
            Effect.gen(function* () {
              const outcomes = new Set<string>()
              while (!isOver) {
                const knocked = yield* client.agent.tcp({
                  ...{ host: "10.99.0.1", port: 8080, timeoutMillis: 10_000, close: "reset" }
                })
                outcomes.add(`${knocked.outcome} ${knocked.answer?.who}`)
              }
              return outcomes
            }),
            { startImmediately: true }
          )
          yield* first.process.kill("SIGKILL")
          yield* first.process.wait()
          const { folder } = first
          const second = yield* start(host, { folder, arguments: marked("0x1") })
          const younger = yield* comment
          assert.notStrictEqual(younger, older)
          const third = yield* start(host, { folder, arguments: ["--takeover", ...marked("0x2")] })
          yield* second.process.wait({ timeoutMillis: startMillis })
          const youngest = yield* comment
          assert.notStrictEqual(youngest, younger)
          // This successor has loaded its definition when it fails, and the old process serves on with it.
          const killed = yield* host.spawn(
            process.execPath,
            [
              ...[main, "serve", "--takeover", "--socket", third.socket, "--state", join(folder, "state")],
              ...["--tcp", "127.0.0.1:8080", ...marked("0x4")]
            ],
            { env }
          )
          assert.strictEqual((yield* killed.wait({ timeoutMillis: startMillis })).code, 1)
          assert.strictEqual((yield* third.map([web])).status, 200)
          assert.notStrictEqual(yield* comment, youngest)
          isOver = true
          assert.deepStrictEqual([...(yield* Fiber.join(knocking))], ["answered c1"])
          assert.deepStrictEqual(yield* contents(host), element)
          assert.isTrue(existsSync(third.socket))
        })
    )
  })

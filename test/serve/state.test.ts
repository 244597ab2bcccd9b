/** The plugin and its state directory: an unusable directory, an unreadable record, a full disk, and a stop. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import type { Running } from "../lab/Running.ts"
import { until } from "../support/until.ts"

const web = "tcp 0.0.0.0:8080 172.31.0.2:80"
const webElement = "tcp . 8080 : 172.31.0.2 . 80"

/** `0.0.0.0:8080 live`, as `ls` shows mappings. */
const listed = (plugin: Plugin.Plugin) =>
  Effect.map(plugin.call("ListPorts", {}), ({ body }) =>
    (
      JSON.parse(body) as {
        readonly Mappings: ReadonlyArray<{
          readonly FrontendIP: string
          readonly FrontendPort: number
          readonly Owner: string
          readonly State: string
        }>
      }
    ).Mappings.map(
      ({ FrontendIP, FrontendPort, Owner, State }) => `${FrontendIP}:${FrontendPort} ${Owner} ${State}`
    ).sort()
  )

const messages = (running: Running) =>
  running
    .lines("stderr")
    .filter((line) => line.startsWith("{"))
    .map((line) => (JSON.parse(line) as { readonly message: string }).message)

/** Repeats the request: by then the first answer is recorded. */
const mapForSure = Effect.fnUntraced(function* (plugin: Plugin.Plugin) {
  assert.strictEqual((yield* plugin.map([web])).status, 200)
  assert.strictEqual((yield* plugin.map([web])).status, 200)
})

const kill = Effect.fnUntraced(function* ({ process }: Plugin.Plugin) {
  yield* process.kill("SIGKILL")
  yield* process.wait()
})

describeLab("a plugin whose state directory", [], () => {
  it.live("belongs to another user, or is writable by others, refuses to start and says what to do", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      const state = join(folder, "state")
      mkdirSync(state, { mode: 0o700 })
      const serve = Effect.map(
        host.exec(process.execPath, [
          ...["adapters/cli/main.ts", "serve", "--socket", join(folder, "p.sock"), "--state", state]
        ]),
        ({ code, stderr }) => [code, stderr]
      )
      chownSync(state, 12345, 0)
      const cause = "portmapper: preparing the state directory failed:"
      assert.deepStrictEqual(yield* serve, [
        1,
        `${cause} ${state} belongs to user 12345, this process to user 0\n`
      ])
      chownSync(state, 0, 0)
      chmodSync(state, 0o770)
      assert.deepStrictEqual(yield* serve, [
        1,
        `${cause} ${state} can be written by others (mode 770); use chmod 700\n`
      ])
      rmSync(state, { recursive: true })
      writeFileSync(state, "")
      assert.deepStrictEqual(yield* serve, [1, `${cause} EEXIST: file already exists, mkdir '${state}'\n`])
      assert.deepStrictEqual(readdirSync(folder), ["state"])
    })
  )

  for (const [title, spoil, why] of [
    ["is damaged", (path: string) => truncateSync(path, 5000), /^it is damaged: /],
    [
      "another program wrote",
      (path: string) => {
        const database = new DatabaseSync(path)
        database.exec("PRAGMA application_id = 1")
        database.close()
      },
      /^it is not a file of portmapper$/
    ]
  ] as const)
    it.live(`holds a record that ${title} sets it aside, and continues with the kernel's redirections`, () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const first = yield* Plugin.start(host)
        assert.strictEqual((yield* first.map([web])).status, 200)
        yield* kill(first)
        const path = join(first.folder, "state", "mappings.db")
        // The write-ahead log alone would do: it makes a damaged file whole again.
        const database = new DatabaseSync(path)
        database.exec("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        spoil(path)
        const second = yield* Plugin.start(host, {
          folder: first.folder,
          arguments: ["--log-format", "json"]
        })
        const aside = readdirSync(join(first.folder, "state")).find((name) =>
          /^mappings\.db\.\d{8}T\d{9}Z$/.test(name)
        )
        assert.isDefined(aside)
        const [, warning = "", restored = ""] = messages(second.process)
        const cause = `${path} can't be used: `
        assert.isTrue(warning.startsWith(cause), warning)
        const [reason = "", rest] = warning.slice(cause.length).split("; ")
        assert.match(reason, why)
        assert.strictEqual(
          rest,
          `it was set aside as ${path.slice(0, -11)}${aside}, and what the kernel still redirects is kept`
        )
        assert.strictEqual(
          restored,
          `restored 0 mappings, 1 unconfirmed, 0 conflicted; undid 0; the record could not be used (${cause}${reason}), and is kept as ${path.slice(0, -11)}${aside}`
        )
        assert.deepStrictEqual(yield* listed(second), ["0.0.0.0:8080 unknown unconfirmed"])
        const { outcome } = yield* client.agent.tcp({ host: "10.99.0.1", port: 8080, close: "reset" })
        assert.strictEqual(outcome, "answered")
        assert.strictEqual((yield* second.map([web])).status, 200)
        assert.deepStrictEqual(yield* listed(second), ["0.0.0.0:8080 engine live"])
      })
    )

  it.live(
    "names a port taken meanwhile logs that, keeps it as conflicted, and serves it once it is free",
    () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const first = yield* Plugin.start(host)
        yield* mapForSure(first)
        yield* kill(first)
        const thief = yield* host.agent.hold({ protocol: "tcp", port: 8080 })
        const second = yield* Plugin.start(host, {
          folder: first.folder,
          arguments: ["--log-format", "json"]
        })
        assert.deepStrictEqual(messages(second.process).slice(1), [
          "could not be restored, and is kept as conflicted: 0.0.0.0:8080/tcp: bind for 0.0.0.0:8080/tcp failed: address already in use",
          "restored 0 mappings, 0 unconfirmed, 1 conflicted; undid 0"
        ])
        assert.deepStrictEqual(yield* listed(second), ["0.0.0.0:8080 engine conflicted"])
        assert.deepStrictEqual(yield* contents(host), {})
        yield* thief.stop
        yield* until(Effect.map(listed(second), (lines) => lines.join() === "0.0.0.0:8080 engine live"))
        assert.deepStrictEqual(yield* contents(host), {
          any4: [webElement],
          hairpin_any4: ["tcp . 8080 . 172.31.0.2"]
        })
        const { outcome } = yield* client.agent.tcp({ host: "10.99.0.1", port: 8080, close: "reset" })
        assert.strictEqual(outcome, "answered")
      })
  )

  it.live("is removed or moved makes it anew, and a kill loses nothing", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      let plugin = yield* Plugin.start(host)
      const { folder } = plugin
      const state = join(folder, "state")
      const lines = (...ports: ReadonlyArray<number>) => ports.map((port) => `0.0.0.0:${port} engine live`)
      yield* plugin.map([web])
      rmSync(state, { recursive: true })
      assert.strictEqual((yield* plugin.map(["tcp 0.0.0.0:8081 172.31.0.2:80"])).status, 200)
      yield* kill(plugin)
      plugin = yield* Plugin.start(host, { folder })
      assert.strictEqual((yield* plugin.map([web])).status, 200)
      assert.strictEqual((yield* plugin.map(["tcp 0.0.0.0:8081 172.31.0.2:80"])).status, 200)
      // No call comes before the kill.
      renameSync(state, join(folder, "moved"))
      yield* plugin.process.waitForLine("its content is written anew")
      yield* kill(plugin)
      plugin = yield* Plugin.start(host, { folder })
      assert.deepStrictEqual(yield* listed(plugin), lines(8080, 8081))

      rmSync(state, { recursive: true })
      writeFileSync(state, "")
      const refused = yield* plugin.map(["tcp 0.0.0.0:8082 172.31.0.2:80"])
      assert.deepStrictEqual(
        [refused.status, refused.error],
        [500, `preparing the state directory failed: EEXIST: file already exists, mkdir '${state}'`]
      )
      rmSync(state)
      yield* plugin.process.waitForLine("its content is written anew")
      yield* kill(plugin)
      plugin = yield* Plugin.start(host, { folder })
      assert.deepStrictEqual(yield* listed(plugin), lines(8080, 8081))
    })
  )

  it.live(
    "is on a full disk refuses new mappings with the reason, keeps existing ones, and unmaps them",
    () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const folder = yield* Plugin.temporaryFolder
        const state = join(folder, "state")
        mkdirSync(state)
        const plugin = yield* Plugin.start(host, {
          folder,
          wrapper: [
            ...["unshare", "--mount", "sh", "-c"],
            'mount -t tmpfs -o size=2m,mode=700 none "$0" && exec "$@"',
            state
          ]
        })
        const old = yield* plugin.map([web])
        assert.strictEqual(old.status, 200)

        const filler = `/proc/${plugin.process.pid}/root${state}/filler`
        assert.throws(() => writeFileSync(filler, Buffer.alloc(4 << 20)), /ENOSPC/)
        let port = 9000
        let answer = yield* plugin.map([`tcp 0.0.0.0:${port} 172.31.0.2:80`])
        while (answer.status === 200 && port < 11_000)
          answer = yield* plugin.map([`tcp 0.0.0.0:${++port} 172.31.0.2:80`])
        assert.deepStrictEqual(
          [answer.status, answer.error],
          [500, `recording a mapping failed: no space left for ${state}/mappings.db`]
        )
        const kept = (yield* contents(host))["any4"] ?? []
        assert.isTrue(kept.includes(webElement))
        assert.isFalse(kept.includes(`tcp . ${port} : 172.31.0.2 . 80`))
        assert.strictEqual((yield* plugin.unmap(old.bindings)).status, 200)
        assert.isFalse(((yield* contents(host))["any4"] ?? []).includes(webElement))

        rmSync(filler)
        assert.strictEqual((yield* plugin.map([web])).status, 200)
      })
  )
})

describeLab("a plugin that gets SIGTERM", [], () => {
  it.live(
    "during a request, and again, refuses new ones, finishes that one, and leaves it to the successor",
    () =>
      Effect.gen(function* () {
        const { host, client } = yield* Lab.make()
        const conntrack = yield* Plugin.temporaryFolder
        const [slow, begun] = [join(conntrack, "slow"), join(conntrack, "begun")]
        const plugin = yield* Plugin.start(host, {
          env: { ...Plugin.importing("slowConntrack"), SLOW_CONNTRACK: conntrack }
        })
        assert.strictEqual((yield* plugin.map([web])).status, 200)
        // Without a flow there is nothing to dump.
        yield* client.agent.udp({ host: "10.99.0.1", port: 9 })

        writeFileSync(slow, "")
        const calling = yield* Effect.forkChild(plugin.map(["udp 0.0.0.0:8081 172.31.0.2:80"]), {
          startImmediately: true
        })
        yield* until(Effect.sync(() => existsSync(begun)))
        yield* plugin.process.kill("SIGTERM")
        yield* until(Effect.sync(() => !existsSync(plugin.socket)))
        yield* plugin.process.kill("SIGTERM")
        yield* plugin.process.kill("SIGINT")
        const refused = yield* Effect.flip(plugin.call("ListPorts", {}))
        assert.match(refused.detail, /ENOENT|ECONNREFUSED/)

        rmSync(slow)
        const { status, bindings } = yield* Fiber.join(calling)
        assert.deepStrictEqual([status, bindings.map(({ FrontendPort }) => FrontendPort)], [200, [8081]])
        assert.deepStrictEqual(yield* plugin.process.wait(), {
          code: 0,
          signal: null
        })
        const successor = yield* Plugin.start(host, { folder: plugin.folder })
        assert.deepStrictEqual(yield* listed(successor), [
          "0.0.0.0:8080 engine live",
          "0.0.0.0:8081 engine live"
        ])
      })
  )
})

/** The page of a real plugin: what it is told of the host, through a kill, a conflict and a takeover. */
import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Model } from "../../adapters/page/app/model.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { elements } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { request } from "../support/http.ts"
import { type PageReader, readPage } from "../support/pageReader.ts"

const web = "tcp 0.0.0.0:8080 172.31.0.2:80"

const rowAt = (model: Model, port: number) => [...model.rows.values()].find((row) => row.port === port)
const texts = ({ events }: Model) => events.map(({ kind, text }) => `${kind} ${text}`)
const shows = (page: PageReader, text: string) =>
  page.shows((model) => texts(model).some((one) => one.startsWith(text)))

describeLab("the page of a plugin", [], () => {
  it.live(
    "follows what is mapped, its traffic, and what doctor says; and nothing that it is asked for changes that",
    () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const folder = yield* Plugin.temporaryFolder
        const socket = join(folder, "state", "page.sock")
        const asked = ["--page", `unix:${socket}`, "--group", "0"]
        const plugin = yield* Plugin.start(host, { folder, arguments: asked })
        yield* plugin.process.waitForLine(`the group of --group can't reach ${socket}`)
        assert.strictEqual(statSync(socket).mode & 0o777, 0o660)
        const page = yield* readPage(socket)
        const empty = yield* page.shows(() => true)
        assert.deepStrictEqual([empty.rows.size, empty.host.mappings], [0, 0])

        const { bindings } = yield* plugin.map([web], { "portmapper.allow": "10.0.0.0/8" })
        yield* shows(page, "mapped 0.0.0.0:8080/tcp to 172.31.0.2:80")
        yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })
        const counted = yield* page.shows((model) => (rowAt(model, 8080)?.connections ?? 0) > 0)
        const row = rowAt(counted, 8080)
        assert.deepStrictEqual(row?.carriers, { socket: true, kernel: true, relay: "loopback" })
        assert.deepStrictEqual(row?.labels, [{ name: "portmapper.allow", value: "10.0.0.0/8" }])
        assert.strictEqual(
          row?.unmap,
          `portmapper unmap -p 0.0.0.0:8080 --owner engine --socket ${plugin.socket}`
        )
        assert.isAbove(counted.host.descriptors.used, 0)

        assert.strictEqual((yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.3:80"])).status, 500)
        yield* shows(page, "refused bind for 0.0.0.0:8080/tcp failed: port is already allocated")

        const { checks } = yield* page.shows((model) => model.checks !== null)
        assert.include(checks?.checks.map(({ name }) => name) ?? [], "nftables")

        const list = Effect.map(
          plugin.call("ListPorts", {}),
          ({ body }) => JSON.parse(body).Mappings[0].Since
        )
        const before = yield* list
        for (const path of [
          "/PortMapper.UnmapPorts",
          "/PortMapper.MapPorts",
          "/Plugin.Activate",
          "/api/state"
        ]) {
          const body = JSON.stringify({ PortBindings: bindings })
          const { status } = yield* Effect.promise(() =>
            request(socket, path, body, { headers: { Host: "localhost" } })
          )
          assert.isAbove(status, 403)
        }
        assert.strictEqual(yield* list, before)

        yield* plugin.unmap(bindings)
        yield* shows(page, "unmapped 0.0.0.0:8080/tcp to 172.31.0.2:80")
        yield* page.shows((model) => model.rows.size === 0)
        yield* plugin.process.stop
        assert.isFalse(existsSync(socket))
      })
  )

  it.live(
    "goes on after a kill and a takeover, and says which port could not be served again, why, and what to do",
    () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const folder = yield* Plugin.temporaryFolder
        const socket = join(folder, "page.sock")
        const options = { folder, arguments: ["--page", `unix:${socket}`] }
        const first = yield* Plugin.start(host, options)
        yield* first.map([web])
        const page = yield* readPage(socket)
        const { epoch } = yield* page.shows(({ rows }) => rows.size === 1)
        yield* first.process.kill("SIGKILL")
        yield* first.process.wait()
        const occupant = yield* host.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 8080 })
        const second = yield* Plugin.start(host, options)
        const restarted = yield* page.shows((model) => model.epoch !== epoch)
        const row = rowAt(restarted, 8080)
        assert.deepStrictEqual(
          [row?.state, row?.problem?.severity, row?.problem?.reason],
          ["conflicted", "error", "bind for 0.0.0.0:8080/tcp failed: address already in use"]
        )
        assert.match(row?.problem?.remedy ?? "", /ss -Hlnpt 'sport = :8080'/)
        assert.strictEqual(restarted.host.problems, 1)
        assert.includeMembers(
          [...texts(restarted)],
          [
            "restored restored 1 mappings, 1 of them in conflict",
            "conflicted 0.0.0.0:8080/tcp: bind for 0.0.0.0:8080/tcp failed: address already in use"
          ]
        )
        yield* occupant.stop
        const served = yield* shows(page, "served 0.0.0.0:8080/tcp is served")
        assert.isNull(rowAt(served, 8080)?.problem)

        const before = page.failures().length
        yield* Plugin.start(host, { folder, arguments: [...options.arguments, "--takeover"] })
        yield* shows(page, `tookOver took over from process ${second.process.pid}: 1 mappings`)
        assert.strictEqual(page.failures().length, before, page.failures().join())
      })
  )

  it.live(
    "is guarded on a loopback port like the plugin's own, and is not loaded where it is not asked for",
    () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const folder = yield* Plugin.temporaryFolder
        const loaded = join(folder, "loaded")
        const env = { ...Plugin.importing("loadedModules"), LOADED_MODULES: loaded }
        const pageModules = () =>
          readFileSync(loaded, "utf8")
            .split("\n")
            .filter((url) => /\/page\//i.test(url))
        const without = yield* Plugin.start(host, { folder, env })
        yield* without.process.stop
        assert.deepStrictEqual(pageModules(), [])
        const plugin = yield* Plugin.start(host, { folder, env, arguments: ["--page", "127.0.0.1:9080"] })
        yield* plugin.process.waitForLine(
          "listening on 127.0.0.1:9080 without TLS, for every user of this host, with the page"
        )
        assert.deepStrictEqual(yield* elements(host, "loopback4"), ["127.0.0.1 . tcp . 9080"])
        yield* plugin.process.stop
        assert.deepStrictEqual(yield* elements(host, "loopback4"), [])
        assert.isAbove(pageModules().length, 5)
      })
  )
})

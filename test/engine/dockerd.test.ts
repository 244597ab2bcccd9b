/**
 * The watch on a real Engine: containers with labels and without `-p`, reached from outside by real packets, past
 * restarts of the container, the Engine and the watch. Forwarding is denied by default, so that only our rule in
 * DOCKER-USER admits them.
 */
import { DatabaseSync } from "node:sqlite"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  docker,
  engineLab,
  leaveContainer,
  outside,
  prepareImages,
  runContainer,
  servedAt,
  servedSoon,
  watching
} from "../lab/Containers.ts"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { temporaryFolder } from "../lab/Plugin.ts"

const engine = (host: Namespace, folder?: string) =>
  Effect.tap(
    Dockerd.start(host, { bridge: true, iptables: true, ...(folder === undefined ? {} : { folder }) }),
    () => host.check("iptables", ["-P", "FORWARD", "DROP"])
  )

const ipv4 = (listed: ReadonlyArray<Plugin.ListedPort>) =>
  listed.filter(({ FrontendIP }) => !FrontendIP.includes(":"))

const dockerUser = (host: Namespace) =>
  Effect.map(host.check("iptables", ["-S", "DOCKER-USER"]), (text) =>
    text.split("\n").filter((line) => line.startsWith("-A "))
  )

const ourRule =
  "-A DOCKER-USER -m mark --mark 0x1000/0x1000 -m conntrack --ctstate DNAT -m comment --comment portmapper -j ACCEPT"

describeLab("a watch on a real Engine", ["dockerd", "busybox", "iptables"], () => {
  it.live("publishes labelled containers across restarts of them, of itself and of the Engine", () =>
    Effect.gen(function* () {
      const { host, client } = yield* engineLab
      const folder = yield* temporaryFolder
      const state = yield* temporaryFolder
      const first = yield* Effect.scoped(
        Effect.gen(function* () {
          const dockerd = yield* engine(host, folder)
          yield* prepareImages(dockerd, { greedy: { "portmapper.publish": "2200:80" } })
          const ports = yield* Effect.scoped(
            Effect.gen(function* () {
              const plugin = yield* Plugin.start(host, {
                folder: state,
                arguments: watching(dockerd.socket)
              })
              yield* docker(dockerd, ["network", "create", "front"])
              yield* leaveContainer(dockerd, "web", {
                labels: { "portmapper.publish": "8080:80,80" },
                args: ["--restart=always"]
              })
              yield* leaveContainer(dockerd, "pulled", { image: "greedy" })
              yield* leaveContainer(dockerd, "wrong", { labels: { "portmapper.publish": "80:http" } })
              assert.strictEqual(yield* servedSoon(client, outside, 8080, "web"), "web")
              assert.deepStrictEqual(yield* dockerUser(host), [ourRule, "-A DOCKER-USER -j RETURN"])
              assert.strictEqual(yield* servedAt(host, "127.0.0.1", 8080), "web")
              assert.strictEqual(yield* servedAt(client, outside, 2200), "nobody")
              const listed = ipv4(yield* Plugin.list(plugin))
              const ephemeral = listed.find(
                ({ FrontendPort, State }) => FrontendPort !== 8080 && State === "live"
              )
              const port = ephemeral?.FrontendPort ?? 0
              assert.strictEqual(yield* servedAt(client, outside, port), "web")
              assert.deepStrictEqual(
                listed
                  .filter(({ State }) => State === "conflicted")
                  .map(({ Labels }) => Labels["portmapper.container"]),
                ["wrong"]
              )
              assert.isTrue(plugin.process.lines().some((line) => line.includes("wrong: not published")))
              assert.isTrue(
                plugin.process
                  .lines()
                  .some((line) => line.includes("pulled: portmapper.publish=2200:80 is ignored"))
              )

              // The container takes the address of another, started before it came back.
              yield* docker(dockerd, ["stop", "web"])
              assert.strictEqual(yield* servedSoon(client, outside, 8080, "nobody"), "nobody")
              yield* leaveContainer(dockerd, "between", { labels: { "portmapper.publish": "8081:80" } })
              yield* docker(dockerd, ["start", "web"])
              assert.strictEqual(yield* servedSoon(client, outside, 8080, "web"), "web")
              assert.strictEqual(yield* servedAt(client, outside, 8081), "between")
              assert.strictEqual(yield* servedAt(client, outside, port), "web")

              // The watch puts the rule back when another process flushes the chain.
              yield* host.check("iptables", ["-F", "DOCKER-USER"])
              assert.strictEqual(yield* servedSoon(client, outside, 8080, "web"), "web")

              yield* docker(dockerd, ["network", "connect", "front", "between"])
              yield* docker(dockerd, ["network", "disconnect", "bridge", "between"])
              assert.strictEqual(yield* servedSoon(client, outside, 8081, "between"), "between")
              return { port }
            })
          )
          // No watch runs: the published ports stay.
          assert.strictEqual(yield* servedAt(client, outside, 8080), "web")
          yield* docker(dockerd, ["rm", "--force", "between"])
          const plugin = yield* Plugin.start(host, { folder: state, arguments: watching(dockerd.socket) })
          assert.strictEqual(yield* servedSoon(client, outside, 8081, "nobody"), "nobody")
          assert.strictEqual(yield* servedAt(client, outside, ports.port), "web")
          assert.notInclude(
            (yield* Plugin.list(plugin)).map(({ FrontendPort }) => FrontendPort),
            8081
          )
          yield* plugin.process.stop
          return ports
        })
      )
      // The Engine restarts, and with it the container; the watch was started before it.
      const plugin = yield* Plugin.start(host, {
        folder: state,
        arguments: watching(`${folder}/api.sock`, ["--release-on-exit"])
      })
      const dockerd = yield* engine(host, folder)
      yield* Effect.addFinalizer(() =>
        Effect.ignore(dockerd.docker(["rm", "--force", "web", "pulled", "wrong"]))
      )
      assert.strictEqual(yield* servedSoon(client, outside, 8080, "web"), "web")
      assert.strictEqual(yield* servedAt(client, outside, first.port), "web")
      yield* plugin.process.stop
      assert.strictEqual(yield* servedAt(client, outside, 8080), "nobody")
      assert.deepStrictEqual(yield* dockerUser(host), ["-A DOCKER-USER -j RETURN"])
    })
  )

  it.live(
    "publishes a range of a thousand ports, and ports of a running container until they are unmapped",
    () =>
      Effect.gen(function* () {
        const { host, client } = yield* engineLab
        const dockerd = yield* engine(host)
        yield* prepareImages(dockerd)
        const plugin = yield* Plugin.start(host, { arguments: watching(dockerd.socket) })
        yield* runContainer(dockerd, "many", {
          labels: { "portmapper.publish": "20000-20999:20000-20999" },
          ports: [20000, 20500, 20999]
        })
        for (const port of [20000, 20500, 20999])
          assert.strictEqual(yield* servedSoon(client, outside, port, "many"), "many", `${port}`)
        assert.lengthOf(ipv4(yield* Plugin.list(plugin)), 1000)
        yield* docker(dockerd, ["stop", "many"])
        assert.strictEqual(yield* servedSoon(client, outside, 20999, "nobody"), "nobody")
        yield* Effect.sleep("500 millis")
        assert.deepStrictEqual(yield* Plugin.list(plugin), [])

        yield* runContainer(dockerd, "db")
        const follow = yield* plugin.call("FollowContainer", { Container: "db", Publish: ["5432:80"] })
        assert.strictEqual(follow.status, 200, follow.body)
        assert.strictEqual(yield* servedAt(client, outside, 5432), "db")
        yield* docker(dockerd, ["restart", "db"])
        assert.strictEqual(yield* servedSoon(client, outside, 5432, "db"), "db")
        const unmapping = yield* portmapper(host, ["unmap", "-p", "5432", "--socket", plugin.socket])
        assert.strictEqual(unmapping.code, 0, unmapping.stderr)
        yield* docker(dockerd, ["restart", "db"])
        yield* Effect.sleep("1 second")
        assert.strictEqual(yield* servedAt(client, outside, 5432), "nobody")
        const mapping = yield* portmapper(host, [
          "map",
          "-p",
          "5433:80",
          "--to",
          "db",
          "--socket",
          plugin.socket
        ])
        assert.deepStrictEqual([mapping.code, mapping.stderr], [0, ""])
        assert.match(mapping.stdout, /^0\.0\.0\.0:5433\/tcp -> 172\.17\.0\.\d+:80$/m)
        assert.strictEqual(yield* servedAt(client, outside, 5433), "db")
        const missing = yield* portmapper(host, [
          "map",
          "-p",
          "1:80",
          "--to",
          "nobody",
          "--socket",
          plugin.socket
        ])
        assert.deepStrictEqual(
          [missing.code, missing.stderr],
          [1, "portmapper: mapping to container nobody failed: no such container: nobody\n"]
        )
      })
  )

  it.live(
    "resolves a conflict with a container that the Engine knows to be gone, and with nothing else",
    () =>
      Effect.gen(function* () {
        const { host } = yield* engineLab
        const dockerd = yield* engine(host)
        const folder = yield* temporaryFolder
        const socket = ["--engine", `unix://${dockerd.socket}`]
        yield* prepareImages(dockerd)
        yield* runContainer(dockerd, "there")
        const first = yield* Plugin.start(host, { folder, arguments: socket })
        yield* first.map(["tcp 0.0.0.0:8080 172.17.0.2:80"])
        yield* first.map(["tcp 0.0.0.0:8081 172.17.0.77:80"])
        yield* first.map(["tcp 0.0.0.0:8082 10.1.2.3:80"])
        const claim = (plugin: Plugin.Plugin, port: number) =>
          Effect.map(plugin.map([`tcp 0.0.0.0:${port} 172.17.0.5:80`]), ({ status }) => status)
        // A container is published before it runs.
        assert.strictEqual(yield* claim(first, 8081), 500)
        yield* first.process.stop
        passHalfAMinute(`${folder}/state/mappings.db`)
        const plugin = yield* Plugin.start(host, { folder, arguments: socket })
        const claimed = yield* Effect.forEach([8080, 8081, 8082], (port) => claim(plugin, port))
        assert.deepStrictEqual(claimed, [500, 200, 500])
      })
  )
})

/** For what is recorded in the background; no call waits for it. */
const passHalfAMinute = (record: string): void => {
  const database = new DatabaseSync(record)
  database.exec("UPDATE mapping SET since_millis = since_millis - 31000")
  database.close()
}

/** The command line as a user on the host runs it. */
const portmapper = (host: Namespace, args: ReadonlyArray<string>) =>
  host.exec(process.execPath, ["adapters/cli/main.ts", ...args])

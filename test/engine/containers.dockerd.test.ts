/**
 * Mappings of containers that a real Engine removed without an unmap. No released Engine calls the plugin: the test
 * makes the calls, with the addresses of the Engine's containers.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
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
  startEngine
} from "../lab/Containers.ts"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { temporaryFolder } from "../lab/Plugin.ts"
import { until } from "../support/until.ts"

const addressOf = (dockerd: Dockerd.Dockerd, name: string) =>
  Effect.map(docker(dockerd, ["inspect", "-f", "{{.NetworkSettings.IPAddress}}", name]), (address) =>
    address.trim()
  )

/** The recorded containers by port, read from a copy: the plugin has the file to itself. */
const recordedIn = (folder: string) =>
  Effect.gen(function* () {
    const copy = yield* temporaryFolder
    Fs.cpSync(Path.join(folder, "state"), copy, {
      recursive: true,
      filter: (path) => !path.endsWith(".sock")
    })
    const database = new DatabaseSync(Path.join(copy, "mappings.db"))
    const rows = database.prepare("SELECT port, container FROM mapping ORDER BY port").all()
    database.close()
    return rows.map(({ port, container }) => `${port} ${String(container).split(" ").at(-1)}`)
  }).pipe(Effect.scoped)

const recordedSoon = (folder: string, expected: ReadonlyArray<string>) =>
  Effect.map(
    until(recordedIn(folder), (seen) => `${seen}` === `${expected}`),
    (seen) => assert.deepStrictEqual(seen, expected)
  )

describeLab("the containers of a real Engine", ["dockerd", "busybox", "iptables"], () => {
  it.live("take their mappings with them, while the plugin is down and while it serves", () =>
    Effect.gen(function* () {
      const { host, client, dockerd } = yield* startEngine()
      yield* host.check("iptables", ["-P", "FORWARD", "ACCEPT"])
      const folder = yield* temporaryFolder
      const options = { folder, arguments: ["--engine", `unix://${dockerd.socket}`] }
      const web = yield* leaveContainer(dockerd, "web")
      const address = yield* addressOf(dockerd, "web")
      const staying = yield* runContainer(dockerd, "staying")
      const other = yield* addressOf(dockerd, "staying")
      const first = yield* Plugin.start(host, options)
      yield* first.map([`tcp 0.0.0.0:8080 ${address}:80`])
      yield* first.map([`tcp 0.0.0.0:8081 ${other}:80`])
      yield* first.map(["tcp 0.0.0.0:8082 10.1.2.3:80"])
      yield* recordedSoon(folder, [`8080 ${web}`, `8081 ${staying}`, "8082 null"])
      assert.deepStrictEqual((yield* Plugin.list(first)).map(({ Container }) => Container).sort(), [
        "",
        `staying/${staying.slice(0, 12)}`,
        `web/${web.slice(0, 12)}`
      ])
      assert.strictEqual(yield* servedAt(client, outside, 8080), "web")
      yield* first.process.kill("SIGKILL")
      yield* first.process.wait()

      yield* docker(dockerd, ["rm", "--force", "web"])
      yield* leaveContainer(dockerd, "next")
      assert.strictEqual(yield* addressOf(dockerd, "next"), address)
      const plugin = yield* Plugin.start(host, options)
      yield* plugin.process.waitForLine(
        `withdrew 0.0.0.0:8080/tcp to ${address}:80: container ${web.slice(0, 12)} was removed`
      )
      assert.strictEqual(yield* servedAt(client, outside, 8080), "nobody")
      assert.strictEqual(yield* servedAt(client, outside, 8081), "staying")
      assert.strictEqual((yield* plugin.map([`tcp 0.0.0.0:8080 ${other}:80`])).status, 200)
      assert.strictEqual((yield* plugin.map([`tcp 0.0.0.0:8083 ${address}:80`])).status, 200)
      assert.strictEqual(yield* servedSoon(client, outside, 8083, "next"), "next")
      const next = (yield* docker(dockerd, ["inspect", "-f", "{{.Id}}", "next"])).trim()
      yield* recordedSoon(folder, [`8080 ${staying}`, `8081 ${staying}`, "8082 null", `8083 ${next}`])

      yield* docker(dockerd, ["rm", "--force", "next"])
      yield* plugin.process.waitForLine("withdrew 0.0.0.0:8083/tcp")
      yield* docker(dockerd, ["network", "create", "side"])
      yield* docker(dockerd, ["network", "connect", "side", "staying"])
      yield* docker(dockerd, ["network", "disconnect", "bridge", "staying"])
      yield* plugin.process.waitForLine(
        `container staying (${staying.slice(0, 12)}) has another address" event=withdrawn container=${staying}`
      )
      assert.deepStrictEqual(yield* recordedIn(folder), ["8082 null"])
    })
  )

  it.live("leave their mappings alone while the Engine is away, and those in another network namespace", () =>
    Effect.gen(function* () {
      const { host, client } = yield* engineLab
      const data = yield* temporaryFolder
      const [here, elsewhere] = [yield* temporaryFolder, yield* temporaryFolder]
      const starting = Dockerd.start(host, {
        folder: data,
        bridge: true,
        iptables: true,
        args: ["--live-restore"]
      })
      const options = (folder: string) => ({ folder, arguments: ["--engine", `unix://${data}/api.sock`] })
      const plugin = yield* Plugin.start(host, options(here))
      const stranger = yield* Plugin.start(client, options(elsewhere))
      const id = yield* Effect.scoped(
        Effect.gen(function* () {
          const dockerd = yield* starting
          yield* prepareImages(dockerd)
          const id = yield* leaveContainer(dockerd, "web")
          const address = yield* addressOf(dockerd, "web")
          for (const each of [stranger, plugin]) yield* each.map([`tcp 0.0.0.0:8080 ${address}:80`])
          yield* recordedSoon(here, [`8080 ${id}`])
          return id
        })
      )
      const dockerd = yield* starting
      yield* until(addressOf(dockerd, "web"), (address) => address !== "")
      assert.deepStrictEqual(yield* recordedIn(here), [`8080 ${id}`])
      yield* docker(dockerd, ["rm", "--force", "web"])
      yield* plugin.process.waitForLine("withdrew 0.0.0.0:8080/tcp")
      assert.deepStrictEqual(yield* recordedIn(elsewhere), ["8080 null"])
    })
  )
})

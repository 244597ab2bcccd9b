/** The Engine's epochs where no `Plugin.Activate` comes: `--engine-pidfile`, as of a managed plugin. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"

describeLab("a plugin with the Engine's pidfile", [], () => {
  it.live("begins an epoch where the Engine was started since, and not where itself was", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      const pidFile = join(folder, "docker.pid")
      /** One life of the plugin, in which it publishes a port. */
      const life = Effect.fnUntraced(function* (port: number) {
        const plugin = yield* Plugin.start(host, { folder, arguments: ["--engine-pidfile", pidFile] })
        assert.strictEqual((yield* plugin.map([`tcp 0.0.0.0:${port} 172.31.0.2:80`])).status, 200)
        yield* plugin.process.kill("SIGTERM")
        yield* plugin.process.wait()
      })
      writeFileSync(pidFile, "71")
      yield* life(8080)
      yield* life(8081)
      writeFileSync(pidFile, "72")
      yield* life(8082)
      const record = new DatabaseSync(join(folder, "state/mappings.db"))
      const epochs = record.prepare("SELECT port, epoch FROM mapping ORDER BY port").all()
      record.close()
      assert.deepStrictEqual(
        epochs.map(({ port, epoch }) => `${port} ${epoch}`),
        ["8080 1", "8081 1", "8082 2"]
      )
    })
  )

  it.live("is refused to start where the file can't be read", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* Plugin.temporaryFolder
      const files = ["--socket", join(folder, "p.sock"), "--state", join(folder, "state")]
      const pidFile = join(folder, "docker.pid")
      const { code, stderr } = yield* host.exec(process.execPath, [
        ...["adapters/cli/main.ts", "serve", ...files, "--engine-pidfile", pidFile]
      ])
      assert.strictEqual(code, 1)
      assert.include(
        stderr,
        `portmapper: reading --engine-pidfile: ENOENT: no such file or directory, open '${pidFile}'`
      )
    })
  )
})

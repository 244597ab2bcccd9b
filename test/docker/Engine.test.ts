/** A real Engine and the real plugin as `portmapper serve` runs it, connected only by a spec file. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { type Certificate, makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/folders.ts"

const executable = fileURLToPath(new URL("../../adapters/cli/main.ts", import.meta.url))

describeLab("an Engine that finds the plugin by a spec file", ["dockerd"], () => {
  it.live("activates it over TCP by NAME.spec, and over TLS by NAME.json", () =>
    Effect.gen(function* () {
      const { both, ca, client, server } = makeCertificates(yield* temporaryFolder)
      const { host } = yield* Lab.make()
      const dockerd = yield* Dockerd.start(host)
      const folder = dockerd.specFolder
      const state = ["--state", Path.join(yield* temporaryFolder, "state")]
      const tls = (own: Certificate) => ["--tls-cert", own.cert, "--tls-key", own.key, "--tls-ca", ca.cert]
      const shown = ["--spec-cert", client.cert, "--spec-key", client.key]
      const rows: ReadonlyArray<readonly [tcp: string, more: ReadonlyArray<string>, url: RegExp]> = [
        ["127.0.0.1:0", [], /^tcp:\/\/127\.0\.0\.1:\d+#portmapper\n$/],
        ["[::1]:0", [], /^tcp:\/\/\[::1\]:\d+#portmapper\n$/],
        ["127.0.0.1:0", [...tls(server), ...shown], /"Addr": "https:\/\/127\.0\.0\.1:\d+"/],
        ["0.0.0.0:0", [...tls(server), ...shown], /"Addr": "https:\/\/127\.0\.0\.1:\d+"/],
        ["[::]:0", [...tls(server), ...shown], /"Addr": "https:\/\/\[::1\]:\d+"/],
        ["localhost:0", tls(both), /"Addr": "https:\/\/localhost:\d+"/]
      ]
      for (const [index, [tcp, more, url]] of rows.entries()) {
        // A name for each: an Engine activates a plugin that it knows only once.
        const name = `plugin${index}`
        const serve = ["serve", "--tcp", tcp, "--spec-dir", folder, "--name", name, ...state, ...more]
        const plugin = yield* host.spawn(process.execPath, [executable, ...serve])
        yield* plugin.waitForLine(/^listening on /)
        assert.notMatch(plugin.lines().join("\n"), /can't connect/)
        const file = `${name}${more.length === 0 ? ".spec" : ".json"}`
        assert.deepStrictEqual(Fs.readdirSync(folder), [file])
        assert.match(Fs.readFileSync(Path.join(folder, file), "utf8"), url)
        // It is no volume driver; the Engine can know that only from the plugin's answer.
        const { body } = yield* dockerd.api("POST", "/volumes/create", { Name: "x", Driver: name })
        assert.strictEqual(
          JSON.parse(body).message,
          `create x: error looking up volume plugin ${name}: legacy plugin: Plugin does not implement the requested driver`,
          dockerd.process.lines().slice(-5).join("\n")
        )
        yield* plugin.kill("SIGTERM")
        yield* plugin.wait()
        assert.deepStrictEqual(Fs.readdirSync(folder), [])
      }
    })
  )

  it.live("is reported as unable to connect by a warning when the plugin starts", () =>
    Effect.gen(function* () {
      const { ca, server } = makeCertificates(yield* temporaryFolder)
      const folder = yield* temporaryFolder
      const state = ["--state", Path.join(folder, "state")]
      const { host } = yield* Lab.make()
      const files = ["--tls-cert", server.cert, "--tls-key", server.key, "--tls-ca", ca.cert]
      const serve = [
        "serve",
        "--tcp",
        "127.0.0.1:0",
        "--spec-dir",
        folder,
        "--name",
        "pm",
        ...state,
        ...files
      ]
      const plugin = yield* host.spawn(process.execPath, [executable, ...serve])
      yield* plugin.waitForLine(/^listening on 127\.0\.0\.1:\d+ with TLS$/)
      assert.match(
        plugin.lines().join("\n"),
        /level=WARN.*an Engine that follows .*pm\.json can't connect: https:\/\/127\.0\.0\.1:\d+: .*--spec-cert/
      )
    })
  )
})

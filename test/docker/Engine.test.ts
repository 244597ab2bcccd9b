import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/driver.ts"
import { engineMissing, startEngine } from "../support/engine.ts"
import type { PluginOptions } from "../support/plugin.ts"
import { pluginCommand, start } from "../support/process.ts"

const missing = engineMissing()
const required = process.env["PORTMAPPER_REQUIRE_LAB"] === "1"
if (missing !== undefined && !required) console.warn(`SKIPPED: a real Engine activates a plugin: ${missing}`)

describe("a real Engine", () => {
  it.live.skipIf(missing !== undefined && !required)(
    "activates a plugin through NAME.spec, and through NAME.json with TLS",
    () =>
      Effect.gen(function* () {
        assert.isUndefined(missing)
        const { both, ca, client, server } = makeCertificates(yield* temporaryFolder)
        const engine = yield* startEngine
        const folder = engine.plugins
        const files = (own: { cert: string; key: string }) => ({
          certFile: own.cert,
          keyFile: own.key,
          caFile: ca.cert
        })
        const clientOf = (own: { cert: string; key: string }) => ({
          ...files(own),
          insecureSkipVerify: false
        })
        const plugins: ReadonlyArray<NonNullable<PluginOptions["tcp"]>> = [
          { name: "plain", folder, host: "127.0.0.1", port: 0 },
          { name: "plain6", folder, host: "::1", port: 0 },
          { name: "tls", folder, host: "127.0.0.1", port: 0, tls: files(server), client: clientOf(client) },
          { name: "any", folder, host: "::", port: 0, tls: files(server), client: clientOf(client) },
          { name: "named", folder, host: "localhost", port: 0, tls: files(both), client: clientOf(both) }
        ]
        for (const tcp of plugins) {
          const plugin = yield* start(engine.inItsNetwork(pluginCommand({ tcp })))
          const { listening } = yield* plugin.next
          const file = `${tcp.name}${tcp.tls === undefined ? ".spec" : ".json"}`
          assert.deepStrictEqual((listening as [{ spec: string }])[0].spec, Path.join(folder, file))
          // It is no driver of volumes, which the Engine knows only from what the plugin said of itself.
          const { body } = yield* engine.post("/volumes/create", { Name: "x", Driver: tcp.name })
          assert.include(body, "Plugin does not implement the requested driver", engine.log())
          assert.deepStrictEqual(yield* plugin.next, { activated: true })
          yield* plugin.end("SIGTERM")
          assert.deepStrictEqual(Fs.readdirSync(folder), [])
        }
      }),
    60_000
  )
})

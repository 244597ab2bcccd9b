import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Dockerd from "./Dockerd.ts"
import { describeLab } from "./describeLab.ts"
import * as Lab from "./Lab.ts"

/** A minimal plugin: records its requests, and claims to be a volume driver. */
const plugin = Effect.acquireRelease(
  Effect.promise(async () => {
    const folder = mkdtempSync(join(tmpdir(), "portmapper-fake-"))
    const path = join(folder, "any.sock")
    const asked: Array<string> = []
    const server = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`)
      request.resume()
      response.end(request.url === "/Plugin.Activate" ? `{"Implements":["VolumeDriver"]}` : `{"Err":""}`)
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    return { asked, folder, path, server }
  }),
  ({ folder, server }) =>
    Effect.sync(() => {
      server.closeAllConnections()
      server.close()
      rmSync(folder, { recursive: true })
    })
)

describeLab("a dockerd in a lab", ["dockerd", "iptables"], () => {
  it.live(
    "activates a plugin whose socket lies in any folder, and sees nothing of the machine's own Engine",
    () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const { asked, path } = yield* plugin
        const dockerd = yield* Dockerd.start(host)
        yield* dockerd.plugin("fake", path)
        const version = yield* dockerd.api("GET", "/version")
        assert.strictEqual(version.status, 200)
        const made = yield* dockerd.api("POST", "/volumes/create", { Name: "x", Driver: "fake" })
        assert.strictEqual(made.status, 201, made.body)
        assert.strictEqual(asked[0], "POST /Plugin.Activate")
        assert.include(asked, "POST /VolumeDriver.Create")
        assert.strictEqual(yield* dockerd.check("ls", ["/run/docker/plugins"]), "fake.sock\n")
        assert.match(yield* dockerd.check("ip", ["-o", "address"]), /10\.99\.0\.1\/24/)
        assert.match(
          (yield* Effect.flip(dockerd.plugin("fake", "/run/any.sock"))).message,
          /the Engine's \/run is its own$/
        )
      })
  )
})

/**
 * The client's address, as real servers read it from the PROXY protocol header that the relay sends before each
 * connection.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import { ask, headerReaders, start } from "../lab/HeaderReaders.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"

/** A client's way in: the backend must get its own address, and the address it connected to. */
const ways = [
  { from: "client", any: "0.0.0.0", host: "10.99.0.1", source: "10.99.0.2" },
  { from: "client", any: "[::]", host: "fd99::1", source: "fd99::2" },
  { from: "host", any: "0.0.0.0", host: "127.0.0.1", source: "127.0.0.1" },
  { from: "host", any: "[::]", host: "::1", source: "::1" }
] as const
const backends = ["172.31.0.2", "[fd66::2]"]

for (const reader of headerReaders)
  describeLab(`the PROXY protocol read by ${reader}`, [reader], () => {
    it.live("passes the client's address and port, and the address it connected to", () =>
      Effect.gen(function* () {
        const lab = yield* Lab.make()
        yield* start(reader, lab.c1)
        const plugin = yield* Plugin.start(lab.host)
        let port = 8000
        for (const version of ["v1", "v2"])
          for (const backend of backends)
            for (const { from, any, host, source } of ways) {
              port++
              const mapped = yield* plugin.map([`tcp ${any}:${port} ${backend}:80`], {
                "portmapper.proxy-protocol": version
              })
              assert.strictEqual(mapped.status, 200, mapped.error)
              const asked = yield* ask(lab.get(from), host, port)
              const cell = `${version}, ${from} to ${host}, backend ${backend}`
              assert.strictEqual(asked.client, source, cell)
              assert.strictEqual(asked.header, `${source} ${asked.port} ${host} ${port}`, cell)
            }
      })
    )

    it.live("is required by the server: it refuses a connection without the header", () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* start(reader, c1)
        const plugin = yield* Plugin.start(host)
        yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
        assert.strictEqual((yield* ask(client, "10.99.0.1", 8080)).header, "")
        // The same mapping requested again with the label.
        yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"], { "portmapper.proxy-protocol": "v2" })
        const asked = yield* ask(client, "10.99.0.1", 8080)
        assert.strictEqual(asked.header, `10.99.0.2 ${asked.port} 10.99.0.1 8080`)
      })
    )
  })

import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { describeNeeding } from "../lab/describeLab.ts"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"
import { activated } from "../support/process.ts"
import { clientTls, requestTcp } from "../support/tcp.ts"
import { until } from "../support/until.ts"

describeNeeding("a plugin that systemd activates", ["python"], () => {
  it.live("serves a Unix socket and a TCP port bound before it, and does not remove the socket's file", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const plugin = yield* activated([path, ["127.0.0.1", 0]], {}, { LISTEN_FDNAMES: "plugin:tcp" })
      const { environment, listening } = (yield* plugin.next) as {
        environment: unknown
        listening: [unknown, { port: number }]
      }
      const { port } = listening[1]
      assert.deepStrictEqual(listening as unknown, [
        { fd: 3, name: "plugin" },
        { fd: 4, name: "tcp", host: "127.0.0.1", address: "127.0.0.1", port, secure: false }
      ])
      assert.deepStrictEqual(environment, [])
      assert.strictEqual((yield* Effect.promise(() => request(path, "/Plugin.Activate"))).status, 200)
      assert.strictEqual((yield* Effect.promise(() => requestTcp({ port }))).status, 200)
      assert.strictEqual(yield* plugin.end("SIGTERM"), 130)
      assert.isTrue(Fs.lstatSync(path).isSocket())
    })
  )

  it.live("leaves clients that connect between two runs to the second", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const plugin = yield* activated([path], {}, {}, 2)
      const first = yield* plugin.next
      process.kill(Number(first["pid"]), "SIGTERM")
      yield* until(Effect.sync(() => !Fs.existsSync(`/proc/${first["pid"]}`)))
      const answer = yield* Effect.forkChild(
        Effect.promise(() => request(path, "/Plugin.Activate")),
        { startImmediately: true }
      )
      assert.notStrictEqual((yield* plugin.next)["pid"], first["pid"])
      assert.strictEqual((yield* Fiber.join(answer)).status, 200)
      yield* plugin.end("SIGTERM")
    })
  )

  it.live("requires certificates on a TCP port with TLS, though systemd bound it", () =>
    Effect.gen(function* () {
      const { ca, client, server } = makeCertificates(yield* temporaryFolder)
      const tls = { certFile: server.cert, keyFile: server.key, caFile: ca.cert }
      const plugin = yield* activated([["0.0.0.0", 0]], { tls })
      const { listening } = (yield* plugin.next) as { listening: [{ port: number; secure: boolean }] }
      const [{ port, secure }] = listening
      assert.isTrue(secure)
      const answers = yield* Effect.promise(() =>
        Promise.allSettled([
          requestTcp({ port, tls: clientTls(ca, client) }),
          requestTcp({ port, tls: clientTls(ca) }),
          requestTcp({ port })
        ])
      )
      assert.deepStrictEqual(
        answers.map(({ status }) => status),
        ["fulfilled", "rejected", "rejected"]
      )
      assert.strictEqual(yield* plugin.end("SIGTERM"), 130)
    })
  )

  it.live("refuses a port beyond loopback without TLS", () =>
    Effect.gen(function* () {
      const plugin = yield* activated([["0.0.0.0", 0]])
      assert.match(
        String((yield* plugin.next)["failed"]),
        /^file descriptor 3, 0\.0\.0\.0:\d+: it is reached from beyond this host, .* missing: certFile, keyFile, caFile$/
      )
    })
  )
})

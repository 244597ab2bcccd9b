import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import type { Duplex } from "node:stream"
import * as Tls from "node:tls"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { serveFd } from "../../adapters/docker/InheritedSocket.ts"
import { serveTcp } from "../../adapters/docker/PluginTcp.ts"
import { libc } from "../../adapters/linux/Libc.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { type Certificates, makeCertificates } from "../support/certificates.ts"
import { echo } from "../support/drivers.ts"
import { hostileRequests, statusOf } from "../support/hostileRequests.ts"
import { socketFor, temporaryFolder } from "../support/socket.ts"
import { clientTls } from "../support/tcp.ts"

let folder = ""
let certificates: Certificates

beforeAll(() => {
  folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-hostile-"))
  certificates = makeCertificates(folder)
})
afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

const page = Effect.succeed({ contentType: "text/plain", body: "ok\n" })
const options = { pages: { "/metrics": page, "/healthz": page } }

/** A listening socket as a supervisor passes it to this process. */
const inherited = (where: { readonly path: string } | { readonly port: number; readonly host: string }) =>
  Effect.callback<number>((resume) => {
    const server = Net.createServer().listen(where, () => {
      const { fd } = (server as unknown as { readonly _handle: { readonly fd: number } })._handle
      const kept = libc().duplicate(fd)
      // Closing the server would remove the file.
      if ("path" in where) Fs.renameSync(where.path, `${where.path}.kept`)
      server.close(() => resume(Effect.succeed(kept)))
    })
  })

type Connect = () => Duplex

const listeners: Record<string, Effect.Effect<Connect, unknown, Driver | Scope.Scope>> = {
  "a Unix socket": Effect.map(socketFor(echo, options), (path) => () => Net.connect(path)),
  "an inherited Unix socket": Effect.gen(function* () {
    const path = Path.join(yield* temporaryFolder, "p.sock")
    yield* serveFd(yield* inherited({ path }), options)
    return () => Net.connect(`${path}.kept`)
  }),
  "a TCP port": Effect.map(
    serveTcp({ host: "127.0.0.1", port: 0, ...options }),
    ({ port }) =>
      () =>
        Net.connect(port, "127.0.0.1")
  ),
  "an inherited TCP port": Effect.gen(function* () {
    const served = yield* serveFd(yield* inherited({ host: "127.0.0.1", port: 0 }), options)
    return () => Net.connect(served?.port ?? 0, "127.0.0.1")
  }),
  "a TCP port with TLS": Effect.gen(function* () {
    const { ca, server, client } = certificates
    const tls = { certFile: server.cert, keyFile: server.key, caFile: ca.cert }
    const { port } = yield* serveTcp({ host: "127.0.0.1", port: 0, tls, ...options })
    return () => Tls.connect({ host: "127.0.0.1", port, ...clientTls(ca, client) })
  })
}

describe.each(Object.entries(listeners))("%s", (name, served) => {
  it.live("answers each hostile request with its status, and serves the next client", () =>
    Effect.gen(function* () {
      const connect = yield* served
      const expected = hostileRequests.map(
        ({ title, status, overTcp = status }) => `${title}: ${name.includes("TCP") ? overTcp : status}`
      )
      const got = yield* Effect.forEach(hostileRequests, ({ title, bytes }) =>
        Effect.map(
          Effect.promise(() => statusOf(connect(), bytes)),
          (status) => `${title}: ${status}`
        )
      )
      assert.deepStrictEqual(got, expected)
    }).pipe(Effect.provideService(Driver, echo))
  )
})

import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import * as Tls from "node:tls"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/socket.ts"
import { clientTls, requestTcp } from "../support/tcp.ts"

const main = fileURLToPath(new URL("../../adapters/cli/main.ts", import.meta.url))

/** Serves in mode proxy, which changes nothing in the kernel. Lines are those of stderr. */
const serving = (folder: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const own = [
        "--mode",
        "proxy",
        "--state",
        Path.join(folder, "state"),
        "--socket",
        Path.join(folder, "p.sock")
      ]
      const child = spawn(process.execPath, [main, "serve", ...own, ...args], {
        stdio: ["ignore", "ignore", "pipe"]
      })
      const lines = createInterface({ input: child.stderr })[Symbol.asyncIterator]()
      const said = (pattern: RegExp) =>
        Effect.promise(async () => {
          for (;;) {
            const { value, done } = await lines.next()
            if (done === true) throw new Error(`it ended without ${pattern}`)
            const match = pattern.exec(value)
            if (match !== null) return match
          }
        })
      return { child, said }
    }),
    ({ child }) => ended(child, "SIGTERM")
  )

const ended = (child: ChildProcess, signal: NodeJS.Signals) =>
  Effect.callback<number | null>((resume) => {
    if (child.exitCode !== null) return resume(Effect.succeed(child.exitCode))
    child.once("exit", (code) => resume(Effect.succeed(code)))
    child.kill(signal)
  })

/** The name in the certificate that a listener presents, on a connection that stays open. */
const shown = (port: number, tls: Tls.ConnectionOptions) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly socket: Tls.TLSSocket; readonly name: unknown }>((resume) => {
      const socket = Tls.connect({ host: "127.0.0.1", port, ...tls }, () =>
        resume(Effect.succeed({ socket, name: socket.getPeerCertificate().subject.CN }))
      )
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

describe("SIGHUP to portmapper serve", () => {
  it.live("reloads the certificates for new connections, and keeps the old ones where a file is bad", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const certificates = makeCertificates(folder)
      const [cert, key] = [Path.join(folder, "shown.pem"), Path.join(folder, "shown.key")]
      const show = (made: { readonly cert: string; readonly key: string }) => {
        Fs.copyFileSync(made.cert, cert)
        Fs.copyFileSync(made.key, key)
      }
      show(certificates.server)
      const files = ["--tls-cert", cert, "--tls-key", key, "--tls-ca", certificates.ca.cert]
      const specs = [
        "--spec-dir",
        folder,
        "--spec-cert",
        certificates.client.cert,
        "--spec-key",
        certificates.client.key
      ]
      const { child, said } = yield* serving(folder, ["--tcp", "127.0.0.1:0", ...files, ...specs])
      const port = Number((yield* said(/^listening on 127\.0\.0\.1:(\d+) with TLS/))[1])
      const tls = { ...clientTls(certificates.ca, certificates.client), servername: "localhost" }
      const before = yield* shown(port, tls)
      assert.strictEqual(before.name, "server")

      show(certificates.both)
      child.kill("SIGHUP")
      yield* said(/127\.0\.0\.1:0 has its certificates renewed/)
      assert.strictEqual((yield* shown(port, tls)).name, "both")

      Fs.writeFileSync(key, "no key")
      child.kill("SIGHUP")
      yield* said(/127\.0\.0\.1:0 keeps its certificates: .*shown\.key: no PEM private key is in it/)
      assert.strictEqual((yield* shown(port, tls)).name, "both")

      // Neither reload touched the open connections.
      const answer = yield* Effect.callback<string>((resume) => {
        before.socket.once("data", (chunk: Buffer) => resume(Effect.succeed(chunk.toString())))
        before.socket.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      })
      assert.match(answer, /^HTTP\/1\.1 200 /)
      assert.strictEqual((yield* Effect.promise(() => requestTcp({ port, tls }))).status, 200)
    })
  )

  it.live("does not end a plugin without TLS", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const { child, said } = yield* serving(folder, [])
      yield* said(/^listening on /)
      child.kill("SIGHUP")
      yield* said(/SIGHUP: there are no TLS files to reload/)
      const path = Path.join(folder, "p.sock")
      yield* Effect.callback<void>((resume) => {
        const socket = Net.connect(path, () => {
          socket.destroy()
          resume(Effect.void)
        })
      })
      assert.strictEqual(yield* ended(child, "SIGTERM"), 0)
      assert.isFalse(Fs.existsSync(path))
    })
  )
})

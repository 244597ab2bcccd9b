import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Tls from "node:tls"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Result } from "effect"
import {
  engineUrl,
  parseHostPort,
  type SomeTlsFiles,
  serveTcp,
  type TcpOptions
} from "../../adapters/docker/PluginTcp.ts"
import { writeSpec } from "../../adapters/docker/SpecFile.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { patienceMillis } from "../lab/patience.ts"
import { type Certificates, makeCertificates } from "../support/certificates.ts"
import { granting } from "../support/drivers.ts"
import { clientTls, requestTcp, type TcpRequest } from "../support/tcp.ts"
import { until } from "../support/until.ts"

let folder = ""
let certificates: Certificates
let files: Required<SomeTlsFiles>

beforeAll(() => {
  folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-tls-"))
  certificates = makeCertificates(folder)
  files = {
    certFile: certificates.server.cert,
    keyFile: certificates.server.key,
    caFile: certificates.ca.cert
  }
})

afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

const served = (options: Partial<TcpOptions> = {}, driver = granting) =>
  Effect.provideService(serveTcp({ host: "127.0.0.1", port: 0, ...options }), Driver, driver)

const refused = (options: Partial<TcpOptions>) =>
  Effect.map(Effect.flip(Effect.scoped(served(options))), (error) => error.message)

const ask = (request: TcpRequest) => Effect.promise(() => requestTcp(request))
const activated = { status: 200, contentType: "application/vnd.docker.plugins.v1.1+json" }
const answer = { ...activated, body: '{"Implements":["PortMapper"]}\n' }

/** Why a request fails: the server's alert where it sent one, else the error's code. */
const failure = (request: TcpRequest) =>
  Effect.promise(() =>
    requestTcp(request).then(
      ({ status }) => `answered ${status}`,
      (error: NodeJS.ErrnoException) => /SSL alert number \d+/.exec(error.message)?.[0] ?? error.code ?? ""
    )
  )

/** What a connection receives after it sends `bytes`, and after how long the other side closes it. */
const conversation = (port: number, bytes: string, limitMillis: number) =>
  Effect.callback<{ readonly received: string; readonly closed: boolean }>((resume) => {
    const socket = Net.connect(port, "127.0.0.1", () => socket.write(bytes))
    let received = ""
    const timer = setTimeout(() => {
      resume(Effect.succeed({ received, closed: false }))
      socket.destroy()
    }, limitMillis)
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1")
    })
    socket.on("error", () => undefined)
    socket.on("close", () => {
      clearTimeout(timer)
      resume(Effect.succeed({ received, closed: true }))
    })
  })

describe("serveTcp without TLS", () => {
  testNeeding("serves loopback addresses of both families, and returns its port", ["localhost"], () =>
    Effect.gen(function* () {
      for (const host of ["127.0.0.1", "::1", "localhost", "127.9.9.9"]) {
        const listening = yield* served({ host })
        assert.strictEqual(listening.host, host)
        assert.isAbove(listening.port, 0)
        assert.isFalse(listening.secure)
        assert.deepStrictEqual(yield* ask({ host: listening.address, port: listening.port }), answer)
      }
    })
  )

  it.live("refuses any other address, and names the missing options", () =>
    Effect.gen(function* () {
      const why = "it is reached from beyond this host, so clients must show certificates; missing:"
      assert.strictEqual(
        yield* refused({ host: "0.0.0.0", port: 7000 }),
        `0.0.0.0:7000: ${why} certFile, keyFile, caFile`
      )
      assert.strictEqual(
        yield* refused({ host: "::", tls: { certFile: "a", keyFile: "b" } }),
        `[::]:0: ${why} caFile`
      )
      assert.strictEqual(
        yield* refused({ tls: { certFile: "a" } }),
        "127.0.0.1:0: TLS needs a certificate, its key and the clients' CA; missing: keyFile, caFile"
      )
    })
  )

  it.live("reports a port in use, an address of another host and an unknown name", () =>
    Effect.gen(function* () {
      const { port } = yield* served()
      assert.strictEqual(
        yield* refused({ port }),
        `listening on 127.0.0.1:${port} failed: address already in use`
      )
      assert.strictEqual(
        yield* refused({ host: "192.0.2.1", tls: files }),
        "listening on 192.0.2.1:0 failed: address not available"
      )
      assert.strictEqual(
        yield* refused({ host: "nowhere.invalid" }),
        "listening on nowhere.invalid:0 failed: no address is known for nowhere.invalid"
      )
    })
  )
})

describe("serveTcp with TLS", () => {
  it.live("answers a client with a certificate of the CA, by TLS 1.2 and 1.3", () =>
    Effect.gen(function* () {
      for (const host of ["127.0.0.1", "::1", "0.0.0.0"]) {
        const { port, secure } = yield* served({ host, tls: files })
        assert.isTrue(secure)
        for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
          const tls = clientTls(certificates.ca, certificates.client)
          const reached = host === "::1" ? host : "127.0.0.1"
          assert.deepStrictEqual(
            yield* ask({ host: reached, port, tls: { ...tls, minVersion: version, maxVersion: version } }),
            answer
          )
        }
      }
    })
  )

  it.live("refuses a client without a certificate, or with one of another CA, before any call", () =>
    Effect.gen(function* () {
      let calls = 0
      const driver = Driver.of({ ...granting, activated: Effect.sync(() => void calls++) })
      const { port } = yield* served({ tls: files }, driver)
      const { ca, client, foreign, server } = certificates
      for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const)
        for (const own of [undefined, foreign, server])
          assert.match(
            yield* failure({ port, tls: { ...clientTls(ca, own), maxVersion } }),
            /^(SSL alert number \d+|ECONNRESET|EPIPE)$/,
            `${maxVersion} ${own?.cert}`
          )
      assert.strictEqual(calls, 0)
      assert.deepStrictEqual(yield* ask({ port, tls: clientTls(ca, client) }), answer)
      assert.strictEqual(calls, 1)
    })
  )

  it.live("refuses TLS 1.1", () =>
    Effect.gen(function* () {
      const { port } = yield* served({ tls: files })
      const tls = { ...clientTls(certificates.ca, certificates.client), ciphers: "DEFAULT@SECLEVEL=0" }
      assert.strictEqual(
        yield* failure({ port, tls: { ...tls, minVersion: "TLSv1", maxVersion: "TLSv1.1" } }),
        "SSL alert number 70"
      )
    })
  )

  it.live("closes the connection of a client that speaks plain HTTP at once, without an answer", () =>
    Effect.gen(function* () {
      const { port } = yield* served({ tls: files })
      const { closed, received } = yield* conversation(port, "POST /Plugin.Activate HTTP/1.1\r\n\r\n", 2000)
      assert.isTrue(closed)
      assert.notInclude(received, "HTTP")
    })
  )

  it.live("drops a client that does not finish its handshake in 10 s, and serves others meanwhile", () =>
    Effect.gen(function* () {
      const { port } = yield* served({ tls: files })
      const slow = yield* Effect.forkChild(conversation(port, "\x16\x03\x01", 13_000), {
        startImmediately: true
      })
      assert.deepStrictEqual(
        yield* ask({ port, tls: clientTls(certificates.ca, certificates.client) }),
        answer
      )
      assert.isTrue((yield* Fiber.join(slow)).closed)
    })
  )

  it.live(
    "removes its spec file first when it stops, finishes requests in flight, drops unfinished handshakes",
    () =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const proceed = yield* Deferred.make<void>()
        const stop = yield* Deferred.make<void>()
        const listening = yield* Deferred.make<number>()
        const driver = Driver.of({
          ...granting,
          unmapPorts: () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(proceed))
        })
        const tls = clientTls(certificates.ca, certificates.client)
        const server = yield* Effect.forkChild(
          Effect.scoped(
            Effect.gen(function* () {
              const { port } = yield* served({ tls: files }, driver)
              yield* writeSpec({ name: "stopping", folder, url: `https://127.0.0.1:${port}` })
              yield* Deferred.succeed(listening, port)
              yield* Deferred.await(stop)
            })
          )
        )
        const port = yield* Deferred.await(listening)
        const silent = yield* Effect.forkChild(conversation(port, "", patienceMillis), {
          startImmediately: true
        })
        const unmap = yield* Effect.forkChild(ask({ port, tls, path: "/PortMapper.UnmapPorts", body: "{}" }))
        yield* Deferred.await(begun)
        yield* Deferred.succeed(stop, undefined)
        yield* until(Effect.sync(() => !Fs.existsSync(Path.join(folder, "stopping.spec"))))
        yield* until(failure({ port, tls }), (why) => why === "ECONNREFUSED")
        yield* Deferred.succeed(proceed, undefined)
        assert.strictEqual((yield* Fiber.join(unmap)).status, 200)
        assert.isTrue((yield* Fiber.join(silent)).closed)
        yield* Fiber.join(server)
      })
  )

  it.live("leaves no connection and no server behind", () =>
    Effect.gen(function* () {
      const { port } = yield* Effect.scoped(
        Effect.gen(function* () {
          const listening = yield* served({ tls: files })
          const socket = Tls.connect({
            port: listening.port,
            host: "127.0.0.1",
            ...clientTls(certificates.ca, certificates.client)
          })
          socket.on("error", () => undefined)
          yield* Effect.callback<void>((resume) => void socket.once("secure", () => resume(Effect.void)))
          return listening
        })
      )
      assert.strictEqual(yield* failure({ port }), "ECONNREFUSED")
    })
  )
})

describe("parseHostPort", () => {
  it("takes names, IPv4 addresses and IPv6 addresses in brackets", () => {
    const rows = [
      ["127.0.0.1:7000", "127.0.0.1", 7000],
      ["0.0.0.0:0", "0.0.0.0", 0],
      ["[::1]:0", "::1", 0],
      ["[2001:db8::1]:65535", "2001:db8::1", 65535],
      ["localhost:80", "localhost", 80],
      ["node-1.example:1", "node-1.example", 1]
    ] as const
    for (const [text, host, port] of rows)
      assert.deepStrictEqual(parseHostPort(text), Result.succeed({ host, port }), text)
  })

  it("refuses anything else, and says what it expects", () => {
    const form = "expected HOST:PORT, such as 127.0.0.1:7000 or, for IPv6, [::1]:7000"
    const host = "expected the name of a host or an IP address before the port"
    const rows = [
      ["7000", form],
      [":7000", form],
      ["127.0.0.1", form],
      ["127.0.0.1:", form],
      ["::1:80", form],
      ["[::1]", form],
      ["http://127.0.0.1:80", form],
      ["127.0.0.1:65536", "expected a port from 0 to 65535"],
      ["127.0.0.1:-1", form],
      ["[example]:80", "expected an IPv6 address in the brackets"],
      ["[127.0.0.1]:80", "expected an IPv6 address in the brackets"],
      ["[fe80::1%eth0]:80", "expected an address without a zone"],
      ["256.0.0.1:80", host],
      ["a/b:80", host],
      ["", form]
    ] as const
    for (const [text, expected] of rows)
      assert.deepStrictEqual(parseHostPort(text), Result.fail(expected), text)
  })
})

describe("engineUrl", () => {
  it("is an address that the Engine on this host can dial", () => {
    const url = (host: string, secure = false) => engineUrl({ host, address: host, port: 7000, secure })
    assert.strictEqual(url("127.0.0.1"), "tcp://127.0.0.1:7000")
    assert.strictEqual(url("::1"), "tcp://[::1]:7000")
    assert.strictEqual(url("0.0.0.0", true), "https://127.0.0.1:7000")
    assert.strictEqual(url("::", true), "https://[::1]:7000")
    assert.strictEqual(url("::ffff:0.0.0.0", true), "https://127.0.0.1:7000")
    assert.strictEqual(url("node1.example", true), "https://node1.example:7000")
  })
})

import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Https from "node:https"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Result, type Scope } from "effect"
import fc from "fast-check"
import { requestError } from "../../adapters/docker/ClientError.ts"
import { parsePluginUrl, socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { type ClientOptions, makeClient } from "../../adapters/docker/PluginClient.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { hostileAnswer } from "../../src/testing/index.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { seed } from "../property/seed.ts"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/folders.ts"
import { bindingText, group, releaseOf } from "../support/groups.ts"
import { reference } from "../support/reference.ts"

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Effect.scoped(effect))

const web = ["tcp 0.0.0.0 172.17.0.2:80", "tcp :: [fd00::2]:80"]

/** A server with the given answers, and a client of it; `requests` are the requests received. */
const answering = (listener: Http.RequestListener, options: ClientOptions = {}) =>
  Effect.gen(function* () {
    const path = Path.join(yield* temporaryFolder, "p.sock")
    const server = yield* listening(Http.createServer(listener), path)
    return { path, server, client: yield* makeClient(socketAddress(path), options) }
  })

const listening = <S extends Net.Server>(server: S, at: string | number) =>
  Effect.acquireRelease(
    Effect.callback<S>((resume) => void server.listen(at, () => resume(Effect.succeed(server)))),
    () =>
      Effect.sync(() => {
        if (server instanceof Http.Server) server.closeAllConnections()
        server.close()
      })
  )

const always =
  (status: number, body: string, contentType = "text/plain"): Http.RequestListener =>
  (request, response) => {
    request.resume()
    request.once("end", () => response.writeHead(status, { "Content-Type": contentType }).end(body))
  }

const outcomeText = <A, R>(
  effect: Effect.Effect<A, { readonly _tag: string; readonly message: string }, R>
) => Effect.map(Effect.flip(effect), ({ _tag, message }) => `${_tag}: ${message}`)

describe("a client of our own plugin", () => {
  it.live("maps, lists and unmaps as its owner, and is a driver", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      yield* serveUnix(path)
      const client = yield* makeClient(socketAddress(path), { owner: "cli" })
      const driver = Driver.of(client)
      assert.deepStrictEqual(yield* client.activate, ["PortMapper"])
      const bindings = yield* client.mapPorts(group("8000-8010", web, { a: "b", "portmapper.network": "c" }))
      assert.deepStrictEqual(bindings.map(bindingText), [
        "0.0.0.0:8000/tcp -> 172.17.0.2:80, forward",
        "[::]:8000/tcp -> [fd00::2]:80, forward"
      ])
      const [listed, ...rest] = yield* client.listPorts
      assert.strictEqual(rest.length, 1)
      assert.deepStrictEqual(listed && { ...listed, sinceMillis: 0 }, {
        protocol: 6,
        frontendIp: "0.0.0.0",
        frontendPort: 8000,
        backendIp: "172.17.0.2",
        backendPort: 80,
        mode: "nat",
        owner: "cli",
        state: "live",
        sinceMillis: 0,
        labels: new Map([["portmapper.network", "c"]]),
        connections: 0,
        bytesIn: undefined,
        bytesOut: undefined,
        service: undefined,
        refused: undefined,
        slots: undefined,
        open: undefined,
        container: undefined,
        reason: undefined,
        at: undefined
      })
      yield* driver.unmapPorts(releaseOf(bindings))
      assert.deepStrictEqual(yield* client.listPorts, [])
      const forwarding = yield* makeClient(socketAddress(path))
      const owner = "session:a"
      yield* Effect.provideService(forwarding.mapPorts(group("9000", web)), CurrentOwner, owner)
      assert.deepStrictEqual(
        (yield* client.listPorts).map(({ owner }) => owner),
        [owner, owner]
      )
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )
})

describe("a client of another server", () => {
  it.live("reports what is wrong with an answer, however hostile, and goes on", () =>
    Effect.gen(function* () {
      let answer = ""
      const { client } = yield* answering((request, response) => always(200, answer)(request, response))
      const mapping = Effect.asVoid(client.mapPorts(group("8080", web)))
      const listing = Effect.asVoid(client.listPorts)
      for (const text of fc.sample(hostileAnswer, { seed, numRuns: 100 })) {
        answer = text
        for (const ask of [mapping, listing]) {
          const result = yield* Effect.result(ask)
          if (Result.isFailure(result))
            assert.match(result.failure._tag, /^(NotTheProtocol|CallRefused)$/, JSON.stringify(text))
          else assert.strictEqual(ask, listing, JSON.stringify(text))
        }
      }
      answer = '{"Mappings":[]}'
      assert.deepStrictEqual(yield* client.listPorts, [])
    })
  )
})

describe("a client of the Go reference", () => {
  testNeeding("activates, maps and unmaps, and reports that the plugin does not list", ["go"], () =>
    run(
      Effect.gen(function* () {
        const client = yield* makeClient(socketAddress(yield* reference))
        assert.deepStrictEqual(yield* client.activate, ["PortMapper"])
        const bindings = yield* client.mapPorts(group("0", web))
        assert.deepStrictEqual(bindings.map(bindingText), [
          "0.0.0.0:49153/tcp -> 172.17.0.2:80, forward, nat 0.0.0.0:49153",
          "[::]:49153/tcp -> [fd00::2]:80, forward, nat :::49153"
        ])
        yield* client.unmapPorts(releaseOf(bindings))
        assert.deepStrictEqual(yield* client.mapPorts(group("0", [])), [])
        const refused = "CallRefused: bind for port 1 failed: port is already allocated"
        assert.strictEqual(yield* outcomeText(client.mapPorts(group("1", web))), refused)
        assert.strictEqual(yield* outcomeText(client.mapPorts(group("1", web, { status: "500" }))), refused)
        assert.strictEqual(
          yield* outcomeText(client.call("PortMapper.MapPorts", "{")),
          "CallRefused: HTTP status 400 unexpected EOF"
        )
        assert.strictEqual(
          yield* outcomeText(client.listPorts),
          `NotOffered: the plugin at ${client.address.text} does not know PortMapper.ListPorts: only portmapper's own plugin can be asked for that`
        )
      })
    )
  )
})

describe("an answer", () => {
  it.live("is a refusal with an Err and any status, or with an error status and any body", () =>
    Effect.gen(function* () {
      for (const [status, body, expected] of [
        [200, '{"Err":"no"}', "no"],
        [200, '{"PortBindings":null,"Err":"no"}', "no"],
        [500, '{"Err":"no"}\n', "no"],
        [500, '{"err":"no"}', "no"],
        [503, "", "HTTP status 503"],
        [502, "<html>\nbad gateway", "HTTP status 502 <html>"],
        [500, '{"Err":""}', 'HTTP status 500 {"Err":""}']
      ] as const) {
        const { client } = yield* answering(always(status, body))
        assert.strictEqual(yield* outcomeText(client.mapPorts(group("0", web))), `CallRefused: ${expected}`)
      }
    })
  )

  it.live("is accepted with any Content-Type, and an unmap's with any body", () =>
    Effect.gen(function* () {
      const { client } = yield* answering(always(200, '{"Implements":["PortMapper"]}', "x/y"))
      assert.deepStrictEqual(yield* client.activate, ["PortMapper"])
      yield* client.unmapPorts({ bindings: [], labels: new Map() })
      yield* (yield* answering(always(200, ""))).client.unmapPorts({ bindings: [], labels: new Map() })
    })
  )

  it.live("from another kind of server is reported as such", () =>
    Effect.gen(function* () {
      for (const [body, expected] of [
        ["<html>hello", '"<html>hello"'],
        ['{"PortBindings":[]}', "the answer has 0 bindings for a group of 2"],
        ['{"PortBindings":{}}', "bad request: PortBindings = {}: must be an array"],
        ['{"PortBindings":[{"Proto":6},{"Proto":1}]}', "the protocol 1 is none with ports"]
      ] as const) {
        const { client, path } = yield* answering(always(200, body))
        assert.strictEqual(
          yield* outcomeText(client.mapPorts(group("0", web))),
          `NotTheProtocol: ${path} answered PortMapper.MapPorts with what is no plugin's answer: ${expected}`
        )
      }
      const path = Path.join(yield* temporaryFolder, "p.sock")
      yield* listening(
        Net.createServer((socket) => void socket.end("220 smtp ready\r\n")),
        path
      )
      const client = yield* makeClient(socketAddress(path))
      assert.match(yield* outcomeText(client.activate), /^NotTheProtocol: .* it is no HTTP \(Parse Error/)
    })
  )

  it.live("that never comes times out, and one that breaks off is reported", () =>
    Effect.gen(function* () {
      const silent = yield* answering((request) => void request.resume(), { answerTimeoutMillis: 100 })
      assert.strictEqual(
        yield* outcomeText(silent.client.activate),
        `AnswerLost: ${silent.path} gave no answer to Plugin.Activate: none came within 0.1 s`
      )
      const breaking = yield* answering((request) => void request.socket.destroy())
      assert.strictEqual(
        yield* outcomeText(breaking.client.activate),
        `AnswerLost: ${breaking.path} gave no answer to Plugin.Activate: the connection broke`
      )
      const half = yield* answering((request, response) => {
        request.resume()
        response.writeHead(200, { "Content-Length": 100 }).write("{", () => response.destroy())
      })
      assert.match(yield* outcomeText(half.client.activate), /^AnswerLost: /)
    })
  )

  it.live("is not awaited after the caller is interrupted, and the plugin notices", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const gone = yield* Deferred.make<void>()
      const { client } = yield* answering((request, response) => {
        request.resume()
        response.once("close", () => Deferred.doneUnsafe(gone, Effect.void))
        Deferred.doneUnsafe(begun, Effect.void)
      })
      const fiber = yield* Effect.forkChild(client.activate)
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      yield* Deferred.await(gone)
    })
  )
})

describe("a connection", () => {
  it.live("is kept alive, and at most the configured number are opened", () =>
    Effect.gen(function* () {
      const { client, server } = yield* answering(always(200, "{}"), { connections: 3 })
      let connections = 0
      server.on("connection", () => connections++)
      yield* Effect.forEach(Array.from({ length: 30 }), () => client.activate, { concurrency: 10 })
      yield* client.activate
      assert.strictEqual(connections, 3)
    })
  )

  it.live("that fails to open is reported with a remedy", () =>
    Effect.gen(function* () {
      const at = yield* temporaryFolder
      const path = Path.join(at, "p.sock")
      const asked = (where: string) =>
        Effect.flatMap(makeClient(socketAddress(where)), (client) => outcomeText(client.activate))
      assert.strictEqual(
        yield* asked(path),
        `CannotConnect: ${path}: no such socket; start the plugin with: portmapper serve`
      )
      const abandoned = Net.createServer()
      yield* Effect.callback<void>((resume) => void abandoned.listen(`${path}.x`, () => resume(Effect.void)))
      Fs.renameSync(`${path}.x`, path)
      abandoned.close()
      assert.strictEqual(
        yield* asked(path),
        `CannotConnect: ${path}: no process listens on this socket; start the plugin with: portmapper serve`
      )
      const denied = (mode: number, gid: number) => {
        Fs.chmodSync(path, mode)
        if (process.getuid?.() === 0) Fs.chownSync(path, 0, gid)
        return requestError(socketAddress(path), "", { code: "EACCES", message: "", connected: false })
          .message
      }
      assert.strictEqual(denied(0o600, 0), `${path}: permission denied; use sudo`)
      if (process.getuid?.() === 0)
        assert.strictEqual(denied(0o660, 1), `${path}: permission denied; use sudo, or join the group daemon`)
      const closed = yield* makeClient(
        Result.getOrThrow(parsePluginUrl(`http://127.0.0.1:${yield* freePort}`, false))
      )
      assert.strictEqual(
        yield* outcomeText(closed.activate),
        `CannotConnect: ${closed.address.text}: connection refused; is the plugin listening there?`
      )
    })
  )
})

const freePort = Effect.callback<number>((resume) => {
  const server = Net.createServer()
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address() as Net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

describe("TLS", () => {
  it.live("trusts the given authority and presents its certificate", () =>
    Effect.gen(function* () {
      const at = yield* temporaryFolder
      const made = makeCertificates(at)
      const server = yield* listening(
        Https.createServer(
          {
            key: Fs.readFileSync(made.server.key),
            cert: Fs.readFileSync(made.server.cert),
            ca: Fs.readFileSync(made.ca.cert),
            requestCert: true
          },
          always(200, '{"Implements":["PortMapper"]}')
        ),
        0
      )
      const { port } = server.address() as Net.AddressInfo
      const asking = (tls: ClientOptions["tls"], scheme = "tcp") =>
        Effect.flatMap(
          makeClient(Result.getOrThrow(parsePluginUrl(`${scheme}://127.0.0.1:${port}`, tls !== undefined)), {
            tls
          }),
          (client) => client.activate
        )
      const ca = made.ca.cert
      const { cert, key } = made.client
      assert.deepStrictEqual(yield* asking({ ca, cert, key }), ["PortMapper"])
      assert.match(
        yield* outcomeText(asking({ cert, key })),
        /no authority known here .*give one by --tls-ca$/
      )
      assert.match(
        yield* outcomeText(asking({ ca })),
        /asks for a client certificate; give one by --tls-cert and --tls-key$/
      )
      assert.match(
        yield* outcomeText(asking({ ca, cert: made.foreign.cert, key: made.foreign.key })),
        /CannotConnect|AnswerLost/
      )
      assert.match(
        yield* outcomeText(asking({ ca: Path.join(at, "none.pem") })),
        /^TlsFileError: .*none\.pem: ENOENT/
      )
      assert.match(yield* outcomeText(asking(undefined)), /^AnswerLost: http:.* the connection broke$/)
    })
  )
})

/** An Engine over HTTP, against a server with scripted answers. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import { Engine } from "../../adapters/engine/Engine.ts"
import { parseEngine } from "../../adapters/engine/EngineAddress.ts"
import * as EngineHttp from "../../adapters/engine/EngineHttp.ts"
import { makeCertificates } from "../support/certificates.ts"
import { fakeEngine, fakeTlsEngine, ping, type Script } from "../support/engine.ts"
import { temporaryFolder } from "../support/folders.ts"

const engineAt = (url: string, env: Readonly<Record<string, string>> = {}, timeoutMillis = 2_000) =>
  EngineHttp.layer(Result.getOrThrow(parseEngine(url, env)), { timeoutMillis })

/** Runs a request against an Engine with this script; returns the outcome and the requested targets. */
const asking = <A, E>(script: Script, ask: (engine: Engine["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const { asked, path } = yield* fakeEngine(script)
    const outcome = yield* Effect.result(
      Effect.provide(Effect.flatMap(Engine, ask), engineAt(`unix://${path}`))
    )
    return { outcome, asked, path }
  })

const reason = <A, E extends { readonly message: string }>(outcome: Result.Result<A, E>, path: string) =>
  Result.isFailure(outcome) ? outcome.failure.message.replace(path, "SOCKET") : "a success"

const info = (engine: Engine["Service"]) => engine.info
const version = (body: string): Script => ({ "/version": { body } })
const answers: Script = {
  "/info": { body: { ID: "7TKV:WZVF", ServerVersion: "28.0.0", FirewallBackend: { Driver: "nftables" } } }
}

describe("an Engine over HTTP", () => {
  for (const [title, script, expected] of [
    ["in its own version where that is older", ping("1.41"), ["/_ping", "/v1.41/info"]],
    ["in the newest known version where its own is newer", ping("1.99"), ["/_ping", "/v1.52/info"]],
    [
      "in the version that another header announces",
      { "/_ping": { body: "OK" }, ...version('{"ApiVersion":"1.30"}') },
      ["/_ping", "/version", "/v1.30/info"]
    ]
  ] satisfies ReadonlyArray<readonly [string, Script, ReadonlyArray<string>]>)
    it.live(`gets requests ${title}`, () =>
      Effect.gen(function* () {
        const { asked, outcome } = yield* asking({ ...script, ...answers }, info)
        assert.deepStrictEqual(Result.getOrThrow(outcome), {
          id: "7TKV:WZVF",
          version: "28.0.0",
          firewall: "nftables"
        })
        assert.deepStrictEqual(asked, expected)
      }).pipe(Effect.scoped)
    )

  for (const [title, script, expected] of [
    [
      "of another kind",
      { "/_ping": { body: "<html>" }, ...version("<html>") },
      "the server there is not a Docker Engine"
    ],
    ["that is too old", ping("1.23"), "its API 1.23 is older than 1.24"],
    [
      "that refuses, in its own words",
      { ...ping("1.41"), "/info": { status: 403, body: { message: "authorization denied by plugin" } } },
      "GET /info: authorization denied by plugin"
    ],
    ["that refuses without a word", { ...ping("1.41"), "/info": { status: 502 } }, "GET /info: status 502"],
    ["without the path", ping("1.41"), "GET /info: no such path"],
    [
      "that says nothing",
      { ...ping("1.41"), "/info": { silent: true } },
      "no answer to GET /v1.41/info within 2 s"
    ]
  ] satisfies ReadonlyArray<readonly [string, Script, string]>)
    it.live(`reports one ${title}`, () =>
      Effect.gen(function* () {
        const { outcome, path } = yield* asking(script, info)
        assert.strictEqual(reason(outcome, path), `the Engine at SOCKET: ${expected}`)
      }).pipe(Effect.scoped)
    )

  it.live("reports one that does not exist, or has died", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "api.sock")
      const ask = Effect.provide(Effect.flatMap(Engine, info), engineAt(`unix://${path}`))
      assert.strictEqual(
        reason(yield* Effect.result(ask), path),
        "the Engine at SOCKET: no such socket (is Docker installed, and running?)"
      )
      Fs.writeFileSync(path, "")
      assert.strictEqual(
        reason(yield* Effect.result(ask), path),
        "the Engine at SOCKET: no process is listening there (is Docker running?)"
      )
    }).pipe(Effect.scoped)
  )

  it.live("may be another one after a failure", () =>
    Effect.gen(function* () {
      const script: Script = { ...ping("1.50"), ...answers, "/networks": { status: 500 } }
      const { asked } = yield* asking(script, ({ info, networks }) =>
        Effect.gen(function* () {
          yield* info
          yield* Effect.flip(networks)
          Object.assign(script, ping("1.41"))
          yield* info
        })
      )
      assert.deepStrictEqual(asked, ["/_ping", "/v1.50/info", "/v1.50/networks", "/_ping", "/v1.41/info"])
    }).pipe(Effect.scoped)
  )

  it.live("lists containers, the oldest first, with their addresses", () =>
    Effect.gen(function* () {
      const id = (digit: string) => digit.repeat(64)
      const body = [
        {
          Id: id("b"),
          Names: ["/other/alias", "/young"],
          ImageID: "sha256:1",
          Created: 2,
          State: "paused",
          Status: "Up 3 minutes (unhealthy)",
          Labels: { a: "b" },
          HostConfig: { NetworkMode: "front" },
          NetworkSettings: {
            Networks: {
              front: {
                NetworkID: "n1",
                IPAddress: "172.18.0.2",
                Gateway: "172.18.0.1",
                GlobalIPv6Address: "fd00::2",
                IPv6Gateway: "fd00::1",
                GwPriority: 7
              },
              unlisted: { NetworkID: "n2", IPAddress: "172.19.0.2" }
            }
          }
        },
        { Id: id("a"), Names: null, Created: 1, State: "exited", NetworkSettings: null }
      ]
      const networks = [
        {
          Id: "n1",
          Name: "front",
          Driver: "macvlan",
          Internal: true,
          Options: { "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1" }
        }
      ]
      const { outcome } = yield* asking(
        { ...ping("1.41"), "/containers/json": { body }, "/networks": { body: networks } },
        ({ containers }) => containers
      )
      assert.deepStrictEqual(
        Result.getOrThrow(outcome).map(({ attachments, labels, ...container }) => ({
          ...container,
          labels: Object.fromEntries(labels),
          attachments: attachments.map(
            ({ network: { id, driver, hostBinding, internal }, gatewayPriority, gateways, v4, v6 }) => [
              id,
              driver,
              internal,
              hostBinding?.text,
              gatewayPriority,
              gateways,
              v4?.text,
              v6?.text
            ]
          )
        })),
        [
          {
            id: id("a"),
            name: "aaaaaaaaaaaa",
            image: "",
            running: false,
            ended: true,
            createdMillis: 1000,
            networkMode: "default",
            labels: {},
            attachments: [],
            neverRan: false,
            unready: undefined,
            healthy: false
          },
          {
            id: id("b"),
            name: "young",
            image: "sha256:1",
            running: true,
            ended: false,
            createdMillis: 2000,
            networkMode: "front",
            labels: { a: "b" },
            attachments: [["n1", "macvlan", true, "127.0.0.1", 7, 3, "172.18.0.2", "fd00::2"]],
            neverRan: false,
            unready: "paused",
            healthy: false
          }
        ]
      )
    }).pipe(Effect.scoped)
  )

  it.live("starts and stops a container, whatever it did before, and tells its runs apart", () =>
    Effect.gen(function* () {
      const { asked, outcome } = yield* asking(
        {
          ...ping("1.41"),
          "/containers/c1/start": { status: 204 },
          "/containers/c1/stop": { status: 304 },
          "/containers/c1/json": { body: { State: { StartedAt: "2026-01-02T03:04:05.6Z" } } }
        },
        ({ runOf, start, stop }) => Effect.all([start("c1"), stop("c1"), runOf("c1"), runOf("gone")])
      )
      assert.deepStrictEqual(Result.getOrThrow(outcome), [
        undefined,
        undefined,
        "2026-01-02T03:04:05.6Z",
        undefined
      ])
      assert.deepStrictEqual(asked.slice(1), [
        "/v1.41/containers/c1/start",
        "/v1.41/containers/c1/stop",
        "/v1.41/containers/c1/json",
        "/v1.41/containers/gone/json"
      ])
    }).pipe(Effect.scoped)
  )

  it.live("says why a container did not start", () =>
    Effect.gen(function* () {
      const id = "0123456789abcdef".repeat(4)
      const { outcome, path } = yield* asking(
        {
          ...ping("1.41"),
          [`/containers/${id}/start`]: { status: 500, body: { message: "no such file: /serve" } }
        },
        ({ start }) => start(id)
      )
      assert.strictEqual(
        reason(outcome, path),
        "the Engine at SOCKET: POST /containers/0123456789ab/start: no such file: /serve"
      )
    }).pipe(Effect.scoped)
  )

  it.live("answers while many containers are slow to start", () =>
    Effect.gen(function* () {
      const { path } = yield* fakeEngine({
        ...ping("1.41"),
        "/containers/c1/json": { silent: true },
        "/containers/json": { body: [] },
        "/networks": { body: [] }
      })
      const first = yield* Effect.provide(
        Effect.flatMap(Engine, ({ containers, settled }) =>
          Effect.raceFirst(
            Effect.forEach(Array.from({ length: 20 }), () => settled("c1"), { concurrency: "unbounded" }),
            // Once all of those have been requested.
            Effect.andThen(Effect.sleep("100 millis"), containers)
          )
        ),
        engineAt(`unix://${path}`, {}, 20_000)
      )
      assert.deepStrictEqual(first, [])
    }).pipe(Effect.scoped)
  )

  it.live("returns no labels for an image that is gone", () =>
    Effect.gen(function* () {
      const script = { ...ping("1.41"), "/images/there/json": { body: { Config: { Labels: { a: "b" } } } } }
      const { outcome } = yield* asking(script, ({ imageLabels }) =>
        Effect.all([imageLabels("there"), imageLabels("gone")])
      )
      assert.deepStrictEqual(Result.getOrThrow(outcome), [new Map([["a", "b"]]), undefined])
    }).pipe(Effect.scoped)
  )

  it.live("reports changes until the connection ends", () =>
    Effect.gen(function* () {
      const lines = [
        { Type: "container", Action: "start", Actor: { ID: "c1" } },
        { Type: "network", Action: "connect", Actor: { ID: "n1", Attributes: { container: "c2" } } },
        { Type: "network", Action: "connect", Actor: { ID: "n1" } },
        { Type: "container", Action: "kill", Actor: { ID: "c3", Attributes: { signal: "15" } } },
        { Type: "container", Action: "kill", Actor: { ID: "c4", Attributes: { signal: "1" } } },
        { Type: "container", Action: "health_status: healthy", Actor: { ID: "c5" } }
      ].map((event) => JSON.stringify(event))
      const seen: Array<unknown> = []
      const { asked, outcome, path } = yield* asking(
        { ...ping("1.41"), "/events": { body: `${lines.join("\n")}\nnot json\n` } },
        ({ events }) => Stream.runForEach(events, (event) => Effect.sync(() => seen.push(event)))
      )
      assert.deepStrictEqual(seen, [
        { _tag: "Connected" },
        { _tag: "Changed", id: "c1", action: "start" },
        { _tag: "Changed", id: "c2", action: "connect" },
        { _tag: "Changed", id: "c3", action: "stop" },
        { _tag: "Changed", id: "c5", action: "health_status: healthy" }
      ])
      assert.strictEqual(reason(outcome, path), "the Engine at SOCKET: the stream of events ended")
      assert.deepStrictEqual(JSON.parse(decodeURIComponent(asked[1]?.split("filters=")[1] ?? "")), {
        type: ["container", "network"],
        event: [
          "create",
          "start",
          "die",
          "rename",
          "destroy",
          "connect",
          "disconnect",
          "kill",
          "health_status",
          "pause",
          "unpause"
        ]
      })
    }).pipe(Effect.scoped)
  )

  it.live("ends the stream where an event is too long", () =>
    Effect.gen(function* () {
      const { outcome, path } = yield* asking(
        { ...ping("1.41"), "/events": { body: "x".repeat(17 * 1024 * 1024), open: true } },
        ({ events }) => Stream.runDrain(events)
      )
      assert.strictEqual(reason(outcome, path), "the Engine at SOCKET: the stream of events ended")
    }).pipe(Effect.scoped)
  )

  it.live("is dialled by TLS, and must match its certificate where that is required", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const { ca, client, foreign, server } = makeCertificates(folder)
      const read = Fs.readFileSync
      const options = { ca: read(ca.cert), cert: read(server.cert), key: read(server.key) }
      const port = yield* fakeTlsEngine({ ...ping("1.41"), ...answers }, options)
      /** The variables by which `docker` finds its files, with these files. */
      const folderOf = (
        name: string,
        authority: string,
        own: { readonly cert: string; readonly key: string }
      ) => {
        const path = Path.join(folder, name)
        Fs.mkdirSync(path)
        Fs.copyFileSync(authority, Path.join(path, "ca.pem"))
        Fs.copyFileSync(own.cert, Path.join(path, "cert.pem"))
        Fs.copyFileSync(own.key, Path.join(path, "key.pem"))
        return path
      }
      const ask = (DOCKER_CERT_PATH: string, DOCKER_TLS_VERIFY: string) =>
        Effect.flatMap(Engine, info).pipe(
          Effect.provide(engineAt(`tcp://127.0.0.1:${port}`, { DOCKER_CERT_PATH, DOCKER_TLS_VERIFY })),
          Effect.match({
            onFailure: ({ message }) => message.replace(`${port}`, "PORT"),
            onSuccess: ({ version }) => version
          })
        )
      const good = folderOf("good", ca.cert, client)
      const distrusting = folderOf("distrusting", foreign.cert, client)
      assert.strictEqual(yield* ask(good, "1"), "28.0.0")
      assert.match(yield* ask(distrusting, "1"), /^the Engine at https:\/\/127\.0\.0\.1:PORT: .*certificate/)
      assert.strictEqual(yield* ask(distrusting, ""), "28.0.0")
      assert.match(yield* ask(folderOf("unknown", ca.cert, foreign), "1"), /^the Engine at .*PORT: /)
      assert.match(
        yield* ask("/nowhere", "1"),
        /^the Engine at .*: a file for TLS can't be read: ENOENT: .*'\/nowhere\/ca\.pem'/
      )
    }).pipe(Effect.scoped)
  )
})

/** `portmapper conform` as a user or CI runs it. */
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Conformance } from "../../src/testing/index.ts"
import { portmapper } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"

const ours = Effect.gen(function* () {
  const folder = yield* temporaryFolder
  const socket = Path.join(folder, "p.sock")
  yield* serveUnix(socket)
  return { folder, socket }
})

/** Listens on its own socket until the scope ends. */
const listening = <Server extends Net.Server>(server: Server) =>
  Effect.gen(function* () {
    const socket = Path.join(yield* temporaryFolder, "other.sock")
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => void server.listen(socket, () => resume(Effect.void))),
      () => Effect.sync(() => server.close())
    )
    return socket
  })

const withMemory = <A, E>(effect: Effect.Effect<A, E, Driver | Scope.Scope>) =>
  Effect.provide(Effect.scoped(effect), PortMapper.layerMemory())

describe("conform", () => {
  it.live("prints a line for each check, also writes JUnit, and leaves nothing mapped", () =>
    withMemory(
      Effect.gen(function* () {
        const { folder, socket } = yield* ours
        const junit = Path.join(folder, "junit.xml")
        const { status, stdout, stderr } = yield* portmapper([
          ...["conform", "--socket", socket, "--junit", junit, "--runs", "3", "--seed", "5"]
        ])
        assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" })
        const lines = stdout.split("\n")
        assert.deepStrictEqual(lines.slice(0, 3), [
          "skipped handshake             Plugin.Activate with an empty body is answered 200, and Implements names PortMapper",
          "                              -> a live plugin is not activated unless requested",
          "holds   map-answer            a granted entry is answered with its protocol, its backend and an empty Err"
        ])
        assert.match(lines.at(-2) ?? "", /^conforms: \d\d hold, 0 broken, 1 skipped \(seed 5\)$/)
        const xml = Fs.readFileSync(junit, "utf8")
        assert.match(
          xml,
          /^<\?xml .*\?>\n<testsuite name="portmapper conform" tests="45" failures="0" errors="0" skipped="1">\n/
        )
        assert.deepStrictEqual(yield* (yield* Driver).listPorts ?? Effect.succeed([]), [])
      })
    )
  )

  it.live("activates with the option for it, and prints one document with --json", () =>
    withMemory(
      Effect.gen(function* () {
        const { socket } = yield* ours
        const { status, stdout, stderr } = yield* portmapper([
          ...["conform", "--socket", socket, "--json", "--activate", "--runs", "0"]
        ])
        assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" })
        const { conforms, checked } = JSON.parse(stdout) as Conformance
        assert.isTrue(conforms)
        assert.deepStrictEqual(
          checked.filter(({ standing }) => standing !== "holds"),
          []
        )
      })
    )
  )

  it.live("fails on a broken rule, and shows the requests and answers", () =>
    Effect.gen(function* () {
      const socket = yield* listening(
        Http.createServer((request, response) => {
          request.resume()
          response.end('{"PortBindings":[],"Err":""}\n')
        })
      )
      const { status, stdout, stderr } = yield* portmapper(["conform", "--socket", socket])
      assert.strictEqual(status, 1)
      assert.match(
        stderr,
        /^portmapper: conform: broken: map-answer, unmap-failure-status, bad-json, [^\n]*\n$/
      )
      assert.include(
        stdout,
        [
          "--- bad-json: it was granted",
          "",
          "> POST /PortMapper.MapPorts HTTP/1.1",
          "> Host: plugin.moby.localhost",
          "> User-Agent: Go-http-client/1.1",
          "> Accept: application/vnd.docker.plugins.v1.2+json",
          ">",
          '> {"Reqs":[',
          "< HTTP/1.1 200",
          "<",
          '< {"PortBindings":[],"Err":""}',
          ""
        ].join("\n")
      )
    }).pipe(Effect.scoped)
  )

  it.live("names what listens there instead of a plugin", () =>
    Effect.gen(function* () {
      const missing = Path.join(yield* temporaryFolder, "none.sock")
      assert.deepStrictEqual(yield* portmapper(["conform", "--socket", missing]), {
        status: 1,
        stdout: "",
        stderr: `portmapper: conform: asking the plugin at ${missing} failed: no such socket\n`
      })
      assert.deepStrictEqual(yield* portmapper(["conform", "--socket", missing, "--json"]), {
        status: 1,
        stdout: `{"Err":"conform: asking the plugin at ${missing} failed: no such socket"}\n`,
        stderr: `portmapper: conform: asking the plugin at ${missing} failed: no such socket\n`
      })
      const other = yield* listening(
        Net.createServer((connection) => {
          connection.on("error", () => {})
          connection.end("SSH-2.0-other\r\n")
        })
      )
      const { status, stderr } = yield* portmapper(["conform", "--socket", other])
      assert.strictEqual(status, 1)
      assert.match(
        stderr,
        /^portmapper: conform: asking the plugin at \/.*\/other\.sock failed: the answer is not HTTP \(Parse Error: .*\)\n$/
      )
    }).pipe(Effect.scoped)
  )

  it.live("needs exactly one address, and a file that it can write", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* portmapper(["conform"]), {
        status: 2,
        stdout: "",
        stderr: "portmapper: conform: give either --socket PATH or --url URL\n"
      })
      const junit = Path.join(yield* temporaryFolder, "none", "junit.xml")
      assert.deepStrictEqual(yield* portmapper(["conform", "--socket", "/nowhere", "--junit", junit]), {
        status: 1,
        stdout: "",
        stderr: `portmapper: conform: writing ${junit} failed: ENOENT: no such file or directory, open '${junit}'\n`
      })
    }).pipe(Effect.scoped)
  )

  it.live("unmaps what it mapped when it is interrupted", () =>
    withMemory(
      Effect.gen(function* () {
        const { socket } = yield* ours
        const ran = yield* portmapper(["conform", "--socket", socket, "--runs", "1000"], {
          enough: (stdout) => stdout.includes("unmap-one")
        })
        assert.deepStrictEqual([ran.status, ran.stderr], [130, ""])
        assert.deepStrictEqual(yield* (yield* Driver).listPorts ?? Effect.succeed([]), [])
      })
    )
  )
})

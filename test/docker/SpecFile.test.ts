import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { type ClientTls, type SpecOptions, writeSpec } from "../../adapters/docker/SpecFile.ts"
import { temporaryFolder } from "../support/folders.ts"
import { pluginCommand, start } from "../support/process.ts"
import { requestTcp } from "../support/tcp.ts"

const tls: ClientTls = {
  caFile: "/tls/ca.pem",
  certFile: "/tls/engine.pem",
  keyFile: "/tls/engine.key",
  insecureSkipVerify: false
}

const refused = (options: SpecOptions) =>
  Effect.map(Effect.flip(Effect.scoped(writeSpec(options))), (error) => error.message)

/** As release 0.1.0 wrote them; see docs/VERSIONS.md. */
const vector = (name: string): string =>
  Fs.readFileSync(Path.join(import.meta.dirname, "../vectors/0.1.0", name), "utf8")

describe("writeSpec", () => {
  for (const [file, url, files] of [
    ["portmapper.spec", "tcp://127.0.0.1:7000", undefined],
    ["portmapper.json", "https://127.0.0.1:7000", tls]
  ] as const)
    it.live(`writes ${file} as 0.1.0 did, and replaces one that it or a later version left behind`, () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const path = Path.join(folder, file)
        const write = Effect.scoped(
          Effect.map(writeSpec({ name: "portmapper", folder, url, tls: files }), () =>
            Fs.readFileSync(path, "utf8")
          )
        )
        assert.strictEqual(yield* write, vector(file))
        const elsewhere = vector(file).replace(":7000", ":1")
        const later = elsewhere.replace('"Name"', '"Weights": [1], "Name"')
        for (const left of [elsewhere, later]) {
          Fs.writeFileSync(path, left)
          assert.strictEqual(yield* write, vector(file))
        }
      })
    )

  it.live("writes one URL to NAME.spec, readable by all, and removes it at the end", () =>
    Effect.gen(function* () {
      const folder = Path.join(yield* temporaryFolder, "docker", "plugins")
      const umask = process.umask(0o077)
      yield* Effect.addFinalizer(() => Effect.sync(() => process.umask(umask)))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const path = yield* writeSpec({ name: "pm", folder, url: "tcp://127.0.0.1:7000" })
          assert.strictEqual(path, Path.join(folder, "pm.spec"))
          assert.strictEqual(Fs.readFileSync(path, "utf8"), "tcp://127.0.0.1:7000#portmapper\n")
          assert.strictEqual(Fs.statSync(path).mode & 0o777, 0o644)
          assert.deepStrictEqual(Fs.readdirSync(folder), ["pm.spec"])
        })
      )
      assert.deepStrictEqual(Fs.readdirSync(folder), [])
    })
  )

  it.live("writes NAME.json with absolute paths of the client's files", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const url = "https://127.0.0.1:7000"
      const path = yield* writeSpec({ name: "pm", folder, url, tls: { ...tls, keyFile: "engine.key" } })
      assert.deepStrictEqual(JSON.parse(Fs.readFileSync(path, "utf8")), {
        Name: "pm",
        Addr: url,
        TLSConfig: {
          InsecureSkipVerify: false,
          CAFile: "/tls/ca.pem",
          CertFile: "/tls/engine.pem",
          KeyFile: Path.resolve("engine.key")
        },
        WrittenBy: "portmapper"
      })
    })
  )

  it.live("leaves another plugin's file alone, and one that the Engine would read before ours", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const url = "tcp://127.0.0.1:1"
      for (const [file, content] of [
        ["pm.spec", "tcp://127.0.0.1:7000\n"],
        ["pm.json", '{"Name":"pm","Addr":"https://127.0.0.1:1"}'],
        ["pm.json", "not JSON"],
        ["pm/pm.spec", "tcp://127.0.0.1:7000\n"]
      ] as const) {
        const path = Path.join(folder, file)
        Fs.mkdirSync(Path.dirname(path), { recursive: true })
        Fs.writeFileSync(path, content)
        for (const client of [undefined, tls])
          assert.strictEqual(
            yield* refused({ name: "pm", folder, url, tls: client }),
            `${path}: another plugin of this name is described here; remove the file, or choose another name`
          )
        assert.strictEqual(Fs.readFileSync(path, "utf8"), content)
        Fs.rmSync(path)
      }
    })
  )

  it.live("accepts an existing file with the same contents as its own", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const options = { name: "pm", folder, url: "tcp://127.0.0.1:1" }
      const scope = yield* Scope.make()
      const path = yield* Effect.provideService(writeSpec(options), Scope.Scope, scope)
      yield* Effect.scoped(writeSpec(options))
      assert.isFalse(Fs.existsSync(path))
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.live("does not remove a successor's file at the end", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const path = yield* Effect.scoped(
        Effect.tap(writeSpec({ name: "pm", folder, url: "tcp://127.0.0.1:1" }), (path) =>
          Effect.sync(() => Fs.writeFileSync(path, "tcp://127.0.0.1:2#portmapper\n"))
        )
      )
      assert.strictEqual(Fs.readFileSync(path, "utf8"), "tcp://127.0.0.1:2#portmapper\n")
    })
  )

  it.live("refuses names that lead out of the folder, and reports a folder it can't write to", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      for (const name of ["", ".", "..", "a/b", "a\\b"])
        assert.match(yield* refused({ name, folder, url: "tcp://x:1" }), / can't be a plugin's name$/)
      Fs.writeFileSync(Path.join(folder, "file"), "")
      const inFile = Path.join(folder, "file")
      assert.strictEqual(
        yield* refused({ name: "pm", folder: inFile, url: "tcp://x:1" }),
        `${inFile}: making the folder failed: file already exists`
      )
    })
  )

  it.live("replaces the file of a killed process, and refuses that of a running one", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const command = pluginCommand({ tcp: { host: "127.0.0.1", port: 0, name: "pm", folder } })
      const spec = Path.join(folder, "pm.spec")

      const first = yield* start(command)
      yield* first.next
      const left = Fs.readFileSync(spec, "utf8")
      const second = yield* start(command)
      assert.deepStrictEqual(yield* second.next, {
        failed: `${spec}: what is described here is being served; stop that process, remove the file or choose another name`
      })
      assert.strictEqual(Fs.readFileSync(spec, "utf8"), left)

      assert.strictEqual(yield* first.end("SIGKILL"), "SIGKILL")
      assert.strictEqual(Fs.readFileSync(spec, "utf8"), left)
      const third = yield* start(command)
      const { listening } = (yield* third.next) as { listening: [{ port: number }] }
      assert.strictEqual(Fs.readFileSync(spec, "utf8"), `tcp://127.0.0.1:${listening[0].port}#portmapper\n`)
      assert.notStrictEqual(Fs.readFileSync(spec, "utf8"), left)
      assert.strictEqual((yield* Effect.promise(() => requestTcp({ port: listening[0].port }))).status, 200)
      yield* third.end("SIGTERM")
      assert.deepStrictEqual(Fs.readdirSync(folder), [])
    })
  )

  it.live("replaces a leftover file of the other format", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      Fs.writeFileSync(Path.join(folder, "pm.spec"), "tcp://127.0.0.1:1#portmapper\n")
      yield* writeSpec({ name: "pm", folder, url: "https://127.0.0.1:2", tls })
      assert.deepStrictEqual(Fs.readdirSync(folder), ["pm.json"])
    })
  )
})

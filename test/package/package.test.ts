/** The package as its consumers get it: what it installs, what it exports, and its examples, compiled and run. */
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, expect, layer } from "@effect/vitest"
import { Effect } from "effect"
import { publint } from "publint"
import { formatMessage } from "publint/utils"
import manifest from "../../package.json" with { type: "json" }
import { describeNeeding } from "../lab/describeLab.ts"
import { spawn } from "../lab/Running.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"
import { wireEntry } from "../support/requests.ts"
import { bundle, serveWorker } from "../support/workerd.ts"
import { Consumer, checkout, succeed } from "./Consumer.ts"
import { Declarations } from "./declarations.ts"

const tsc = Path.join(checkout, "node_modules/typescript/bin/tsc")

const web = wireEntry("tcp 127.0.0.1:0 172.17.0.2:80")

layer(Consumer.layer)("the package", (it) => {
  it.effect("lets every kind of module resolution find its entries", () =>
    Effect.gen(function* () {
      const { tarball } = yield* Consumer
      const { messages, pkg } = yield* Effect.promise(() =>
        publint({
          pack: { tarball: new Uint8Array(Fs.readFileSync(tarball)).buffer },
          strict: true
        })
      )
      assert.deepStrictEqual(
        messages.map((message) => formatMessage(message, pkg, { color: false })),
        []
      )
    })
  )

  it.effect("installs only itself and koffi beside a consumer's effect", () =>
    Effect.gen(function* () {
      const { installed } = yield* Consumer
      assert.deepStrictEqual(installed, ["koffi", "portmapper"])
    })
  )

  it.effect("contains the licences of bundled code", () =>
    Effect.gen(function* () {
      const { packed } = yield* Consumer
      const notices = Fs.readFileSync(Path.join(packed, "dist/bin/THIRD-PARTY-NOTICES"), "utf8")
      const names = [...notices.matchAll(/^(\S+) \d+\.\d+\.\d+ \(/gm)].map(([, name]) => name)
      assert.includeMembers(names, ["effect", "@effect/platform-node", "preact", "uplot"])
    })
  )

  it.effect("exports the names in docs/API.md, and every type that they refer to", () =>
    Effect.gen(function* () {
      const { packed } = yield* Consumer
      const declarations = new Declarations()
      const entries = Object.entries(manifest.exports).map(([entry, { types }]) => ({
        entry: Path.posix.join("portmapper", entry),
        names: declarations.publicNames(Path.join(packed, types))
      }))
      assert.deepStrictEqual(declarations.hidden(entries.flatMap(({ names }) => names)), [])
      const lists = entries.map(({ entry, names }) => {
        const lines = names.map(({ name, kinds }) => `${name}: ${kinds.join(", ")}`)
        return `\n## ${entry}\n\n\`\`\`\n${lines.join("\n")}\n\`\`\`\n`
      })
      yield* Effect.promise(() =>
        expect([apiHead, ...lists].join("")).toMatchFileSnapshot("../../docs/API.md")
      )
    })
  )

  it.effect("compiles every example, and the code of the documents, in a strict project", () =>
    Effect.gen(function* () {
      const { project } = yield* Consumer
      for (const name of ["types.ts", "portable.ts"])
        Fs.copyFileSync(Path.join(import.meta.dirname, name), Path.join(project, name))
      for (const [index, code] of documentedCode().entries())
        Fs.writeFileSync(Path.join(project, `documented-${index}.ts`), code)
      Fs.writeFileSync(Path.join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: strict }))
      yield* succeed(process.execPath, [tsc, "-p", project])
    })
  )

  it.effect("runs the examples that are tests", () =>
    Effect.gen(function* () {
      const { project } = yield* Consumer
      const { stdout } = yield* succeed(process.execPath, ["--test", "--test-reporter=tap"], project)
      assert.include(stdout, "# pass 3\n# fail 0")
    })
  )

  it.effect("runs a custom driver over three transports", () =>
    Effect.gen(function* () {
      const { project } = yield* Consumer
      const socket = Path.join(yield* temporaryFolder, "own.sock")
      const running = yield* spawn(process.execPath, ["own-driver.ts", socket], { cwd: project })
      yield* running.write(`${rpcLine("MapPorts", { Reqs: [web] })}\n`)
      const answer = yield* running.waitForLine("result", { stream: "stdout", timeoutMillis: 60_000 })
      assert.strictEqual(JSON.parse(answer).result.PortBindings[0].FrontendPort, 40_000)
      const other = JSON.stringify({ Reqs: [{ ...web, BackendPort: 81 }] })
      const mapped = yield* Effect.promise(() => request(socket, "/PortMapper.MapPorts", other))
      assert.strictEqual(JSON.parse(mapped.body).PortBindings[0].FrontendPort, 40_001)
      yield* running.closeInput
      assert.deepStrictEqual(yield* running.wait({ timeoutMillis: 60_000 }), { code: 0, signal: null })
      const { stdout } = yield* succeed(
        process.execPath,
        [
          "--input-type=module",
          "-e",
          `const { handler } = await import("./own-driver.ts")
           const asked = new Request("http://plugin/Plugin.Activate", { method: "POST" })
           console.log(await (await handler(asked)).text())`
        ],
        project
      )
      assert.strictEqual(stdout.trim(), '{"Implements":["PortMapper"]}')
    })
  )

  it.effect("runs every entry that needs no Node of its own", () =>
    Effect.gen(function* () {
      const { project } = yield* Consumer
      Fs.copyFileSync(Path.join(import.meta.dirname, "portable.ts"), Path.join(project, "portable.ts"))
      const { stdout } = yield* succeed(process.execPath, ["portable.ts"], project)
      assert.strictEqual(stdout, "every entry works\n")
    })
  )

  it.effect("runs the embedded mapper, which reserves its published ports and says why it can't serve", () =>
    Effect.gen(function* () {
      const { project } = yield* Consumer
      const folder = yield* temporaryFolder
      const socket = Path.join(folder, "mapper.sock")
      const args = ["embedded.ts", socket, Path.join(folder, "state")]
      const running = yield* spawn(process.execPath, args, { cwd: project })
      yield* running.waitForLine("listening on", { timeoutMillis: 60_000 })
      const map = JSON.stringify({ Reqs: [web] })
      const { body } = yield* Effect.promise(() => request(socket, "/PortMapper.MapPorts", map))
      const port: number = JSON.parse(body).PortBindings[0].FrontendPort
      const second = JSON.stringify({
        Reqs: [{ ...web, BackendPort: 81, FrontendPort: port, FrontendPortEnd: port }]
      })
      const refused = yield* Effect.promise(() => request(socket, "/PortMapper.MapPorts", second))
      assert.include(refused.body, "port is already allocated")
      const again = yield* spawn(process.execPath, args, { cwd: project })
      assert.deepStrictEqual(yield* again.wait({ timeoutMillis: 60_000 }), { code: 1, signal: null })
      assert.include(again.lines().join("\n"), "is in use by process")
      yield* running.kill("SIGTERM")
      assert.deepStrictEqual(yield* running.wait({ timeoutMillis: 60_000 }), { code: 130, signal: null })
      assert.isFalse(Fs.existsSync(socket))
    })
  )

  it.effect("serves, relays and is scraped after its files were removed, as an upgrade does", () =>
    Effect.gen(function* () {
      const { project, packed } = yield* Consumer
      const bin = Path.join(project, "running/bin")
      Fs.cpSync(Path.join(packed, "dist/bin"), bin, { recursive: true })
      const folder = yield* temporaryFolder
      const socket = Path.join(folder, "p.sock")
      const options = ["--mode", "proxy", "--socket", socket, "--state", Path.join(folder, "state")]
      const running = yield* spawn(process.execPath, [Path.join(bin, "portmapper.js"), "serve", ...options])
      yield* running.waitForLine("listening on", { timeoutMillis: 60_000 })
      Fs.rmSync(bin, { recursive: true })
      const metrics = yield* Effect.promise(() => request(socket, "/metrics", "", { method: "GET" }))
      assert.include(metrics.body, "portmapper_mappings")
      const backend = yield* greeter("hello")
      const entry = { ...web, BackendIP: "127.0.0.1", BackendPort: backend }
      const asked = JSON.stringify({ Reqs: [entry] })
      const { body } = yield* Effect.promise(() => request(socket, "/PortMapper.MapPorts", asked))
      assert.strictEqual(yield* received(JSON.parse(body).PortBindings[0].FrontendPort), "hello")
      yield* running.kill("SIGTERM")
      assert.deepStrictEqual(yield* running.wait({ timeoutMillis: 60_000 }), { code: 0, signal: null })
    })
  )

  describeNeeding("an example in another language", ["python"], () => {
    it.effect("runs a Python session over stdio", () =>
      Effect.gen(function* () {
        const { project } = yield* Consumer
        const rpc = ["node_modules/portmapper/dist/bin/portmapper.js", "rpc", "--memory"]
        const args = ["session.py", JSON.stringify({ Reqs: [web] }), process.execPath, ...rpc]
        const running = yield* spawn("python3", args, { cwd: project })
        yield* running.waitForLine(/^published \d+$/, { timeoutMillis: 60_000 })
        yield* running.write("\n")
        assert.deepStrictEqual(yield* running.wait({ timeoutMillis: 60_000 }), { code: 0, signal: null })
        assert.include(running.lines("stdout"), "unpublished {}")
      })
    )
  })

  it.effect("runs under Hono on workerd, with the ports in the runtime's storage", () =>
    Effect.gen(function* () {
      const { project } = yield* Consumer
      const source = yield* bundle({ entryPoints: [Path.join(project, "hono.ts")] })
      const objects = { classes: { PORTS: "Ports" }, folder: yield* temporaryFolder }
      const entry = { ...web, FrontendPort: 8080, FrontendPortEnd: 8080 }
      const ask = (url: string, host: string, backendPort: number) =>
        Effect.promise(async () => {
          const body = JSON.stringify({ Reqs: [{ ...entry, BackendPort: backendPort }] })
          return (await fetch(`${url}/${host}/PortMapper.MapPorts`, { method: "POST", body })).status
        })
      const first = yield* Effect.scoped(
        Effect.flatMap(serveWorker(source, objects), (url) =>
          Effect.all([ask(url, "one", 80), ask(url, "one", 81), ask(url, "two", 81)])
        )
      )
      assert.deepStrictEqual(first, [200, 500, 200])
      const url = yield* serveWorker(source, objects)
      assert.deepStrictEqual(yield* Effect.all([ask(url, "one", 81), ask(url, "one", 80)]), [500, 200])
    })
  )

  for (const [what, kilobytes, worker] of [
    [
      "a custom driver",
      142,
      `import * as Effect from "effect/Effect"
       import { Driver } from "portmapper"
       import { toWebHandler } from "portmapper/fetch"
       const driver = Driver.of({ mapPorts: () => Effect.succeed([]), unmapPorts: () => Effect.void })
       export default { fetch: (request) => toWebHandler(driver)(request) }`
    ],
    [
      "the in-memory mapper",
      235,
      `import { PortMapper } from "portmapper"
       import { toWebHandler } from "portmapper/fetch"
       const handler = toWebHandler(PortMapper.layerMemory())
       export default { fetch: (request) => handler(request) }`
    ]
  ] as const)
    it.effect(`has at most ${kilobytes} KB in a worker with ${what}`, () =>
      Effect.gen(function* () {
        const { project } = yield* Consumer
        const source = yield* bundle({ stdin: { contents: worker, resolveDir: project } })
        assert.isAtMost(source.length, kilobytes * 1000)
        const url = yield* serveWorker(source)
        const answer = yield* Effect.promise(async () =>
          (await fetch(`${url}/Plugin.Activate`, { method: "POST" })).text()
        )
        assert.strictEqual(answer, '{"Implements":["PortMapper"]}\n')
      })
    )
})

/** A server on a loopback port, which sends a text to each client and ends; returns the port. */
const greeter = (text: string) =>
  Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((client) => void client.end(text))
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => void server.close())
  ).pipe(Effect.map((server) => (server.address() as Net.AddressInfo).port))

/** All that a loopback port sends. */
const received = (port: number) =>
  Effect.promise(async () => {
    let text = ""
    for await (const part of Net.connect({ host: "127.0.0.1", port })) text += part
    return text
  })

const rpcLine = (method: string, params: unknown): string =>
  JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })

const strict = {
  target: "esnext",
  module: "nodenext",
  types: ["node"],
  strict: true,
  skipLibCheck: false,
  noEmit: true
}

/** The TypeScript blocks in the documents and in the comments of the code. */
const documentedCode = (): ReadonlyArray<string> =>
  ["README.md", "CONTRIBUTING.md", "docs", "src", "adapters"].flatMap((name) => {
    const path = Path.join(checkout, name)
    const files = Fs.statSync(path).isFile()
      ? [path]
      : Fs.readdirSync(path, { recursive: true, encoding: "utf8" })
          .filter((file) => /\.(md|ts)$/.test(file))
          .map((file) => Path.join(path, file))
    return files.flatMap((file) => {
      const blocks = Fs.readFileSync(file, "utf8").matchAll(/```ts\n([\s\S]*?)```/g)
      return [...blocks].map(([, code = ""]) => code.replaceAll(/^ \* ?/gm, ""))
    })
  })

const apiHead = `# Public names

Everything that the package's entries export, by kind. A change here is one for those who use it, and belongs in the
[changelog](../CHANGELOG.md). Written by \`npx vitest run test/package -u\`; the tests fail where it is out of date.
`

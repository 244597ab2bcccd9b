/** The program in a process of its own: what it prints where, with which status. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { cniByNode, cniProgram } from "../support/cni.ts"
import { run } from "../support/command.ts"

describe("the executable", () => {
  it.live("describes itself without a command, and refuses arguments", () =>
    Effect.gen(function* () {
      const about = yield* cniByNode("", "")
      assert.strictEqual(about.status, 0)
      assert.strictEqual(about.stdout, "")
      assert.match(about.stderr, /^CNI plugin portmapper-cni v\d/)
      const version = yield* run([process.execPath, cniProgram, "--version"])
      assert.match(version.stdout, /^portmapper-cni v\d+\.\d+\.\d+\n$/)
      const wrong = yield* run([process.execPath, cniProgram, "serve"])
      assert.deepStrictEqual([wrong.status, wrong.stdout], [2, ""])
    })
  )

  it("imports only itself and Node's small modules until it has to call the plugin", () => {
    const seen = new Set<string>()
    const outside = new Set<string>()
    const visit = (path: string) => {
      if (seen.has(path)) return
      seen.add(path)
      const source = Fs.readFileSync(path, "utf8")
      for (const [, what = ""] of source.matchAll(/^import (?!type )(?:[^"]*? from )?"([^"]+)"/gms))
        if (!what.startsWith(".")) outside.add(what)
        else if (what.endsWith(".ts")) visit(Path.resolve(Path.dirname(path), what))
    }
    visit(cniProgram)
    assert.deepStrictEqual([...outside].sort(), ["node:os", "node:path"])
    assert.isFalse([...seen].some((path) => path.startsWith(Path.join(import.meta.dirname, "../../src"))))
  })

  it.live("reads a configuration of any length, and prints its outcome with status 1 where it failed", () =>
    Effect.gen(function* () {
      const long = {
        cniVersion: "1.0.0",
        name: "net",
        prevResult: { cniVersion: "1.0.0", x: "é".repeat(200_000) }
      }
      const { status, stdout } = yield* cniByNode("ADD", long)
      assert.strictEqual(status, 0)
      assert.deepStrictEqual(JSON.parse(stdout), long.prevResult)
      const refused = yield* cniByNode("ADD", "")
      assert.deepStrictEqual([refused.status, refused.stderr], [1, ""])
      assert.strictEqual(JSON.parse(refused.stdout).code, 6)
    })
  )

  it.live("refuses a Node that is too old", () =>
    Effect.gen(function* () {
      const pretend = 'Object.defineProperty(process, "versions", { value: { node: "23.11.1" } })'
      const old = [process.execPath, "--import", `data:text/javascript,${pretend}`, cniProgram]
      assert.deepStrictEqual(yield* run(old), {
        status: 2,
        stdout: "",
        stderr: "portmapper-cni: needs Node.js 24 or later, this is 23.11.1\n"
      })
    })
  )
})

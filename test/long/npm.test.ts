/** The package as npm installs it from the registry's side: with its real dependencies, in an empty project. */
import { copyFileSync, cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { Consumer, checkout, succeed } from "../package/Consumer.ts"
import { temporaryFolder } from "../support/folders.ts"

class Installed extends Context.Service<
  Installed,
  { readonly project: string; readonly tools: string; readonly tree: string; readonly tarball: string }
>()("test/Installed") {
  static readonly layer = Layer.effect(
    Installed,
    Effect.gen(function* () {
      const { tarball } = yield* Consumer
      const tools = join(yield* temporaryFolder, "tools")
      cpSync(join(import.meta.dirname, "consumer"), tools, { recursive: true })
      yield* succeed("npm", ["ci"], tools)
      const project = yield* temporaryFolder
      writeFileSync(join(project, "package.json"), '{"private":true,"type":"module"}')
      const { effect } = manifest.devDependencies
      yield* succeed("npm", ["install", "--ignore-scripts", tarball, `effect@${effect}`], project)
      const { stdout: tree } = yield* succeed("npm", ["ls", "--all", "--parseable"], project)
      // For the program that is compiled and run.
      const { "fast-check": fastCheck, "@types/node": types } = manifest.devDependencies
      const more = [`fast-check@${fastCheck}`, `@types/node@${types}`]
      yield* succeed("npm", ["install", "--ignore-scripts", ...more], project)
      copyFileSync(join(checkout, "test/package/portable.ts"), join(project, "portable.ts"))
      const entries = Object.keys(manifest.exports).map((entry) => join("portmapper", entry))
      writeFileSync(
        join(project, "entries.ts"),
        entries
          .map((entry, index) => `import * as entry${index} from "${entry}"\nconsole.log(entry${index})\n`)
          .join("")
      )
      return { project, tools, tree, tarball }
    }).pipe(Effect.orDie)
  ).pipe(Layer.provide(Consumer.layer))
}

layer(Installed.layer, { timeout: 600_000 })("the package from a registry", (it) => {
  it.effect("brings the dependencies that are documented, at the documented size", () =>
    Effect.gen(function* () {
      const { project, tree, tarball } = yield* Installed
      const names = tree
        .trim()
        .split("\n")
        .flatMap((path) => path.split("/node_modules/").slice(1))
      const own = names.filter((name) => name !== "effect")
      assert.deepStrictEqual([...new Set(own)].sort(), [
        `@koromix/koffi-linux-${process.arch}`,
        "koffi",
        "portmapper"
      ])
      const documented = readFileSync(join(checkout, "docs/INTERFACE.md"), "utf8")
      const sizeOf = (what: string) => {
        const row = new RegExp(`^\\| ${what} +\\| ([\\d.]+) (KB|MB) `, "m").exec(documented)
        return Number(row?.[1]) * (row?.[2] === "MB" ? 1e6 : 1e3)
      }
      const bytes = (path: string) =>
        Effect.map(succeed("du", ["-sbL", path]), ({ stdout }) => Number(stdout.split("\t")[0]))
      const modules = join(project, "node_modules")
      for (const [what, path] of [
        ["`portmapper`, packed", tarball],
        ["`portmapper`", join(modules, "portmapper")],
        ["`koffi`", join(modules, "koffi")],
        ["`@koromix/koffi-linux-x64`", join(modules, `@koromix/koffi-linux-${process.arch}`)]
      ] as const) {
        const size = yield* bytes(path)
        assert.isBelow(Math.abs(size / sizeOf(what) - 1), 0.1, `${what} has ${size} bytes`)
      }
    })
  )

  for (const [version, compiler] of [
    ["5.9", () => Effect.map(Installed, ({ tools }) => join(tools, "node_modules/typescript/bin/tsc"))],
    ["7", () => Effect.succeed(join(checkout, "node_modules/typescript/bin/tsc"))]
  ] as const)
    it.effect(`compiles under tsc --strict of TypeScript ${version}, declarations included`, () =>
      Effect.gen(function* () {
        const { project } = yield* Installed
        const tsc = yield* compiler()
        const { stdout } = yield* succeed(process.execPath, [tsc, "--version"])
        assert.include(stdout, `Version ${version}.`)
        const options = ["--strict", "--noEmit", "--target", "esnext", "--module", "nodenext"]
        const more = ["--types", "node", "--skipLibCheck", "false"]
        yield* succeed(process.execPath, [tsc, ...options, ...more, "entries.ts", "portable.ts"], project)
      })
    )

  it.effect("has every entry under Node, and runs those that need no Node of its own", () =>
    Effect.gen(function* () {
      const { project } = yield* Installed
      yield* succeed(process.execPath, ["entries.ts"], project)
      const { stdout } = yield* succeed(process.execPath, ["portable.ts"], project)
      assert.strictEqual(stdout, "every entry works\n")
    })
  )

  it.effect("runs every entry but portmapper/node, /linux and /host under Bun", () =>
    Effect.gen(function* () {
      const { project, tools } = yield* Installed
      const bun = join(tools, "node_modules/.bin/bun")
      const { stdout } = yield* succeed(bun, ["portable.ts"], project)
      assert.strictEqual(stdout, "every entry works\n")
    })
  )

  it.effect("has types that ESM finds in every way of resolution", () =>
    Effect.gen(function* () {
      const { tools, tarball } = yield* Installed
      const attw = join(tools, "node_modules/@arethetypeswrong/cli/dist/index.js")
      const { stdout } = yield* succeed(process.execPath, [attw, tarball, "--profile", "esm-only"])
      for (const resolution of ["node16 \\(from ESM\\): 🟢", "bundler: 🟢"])
        assert.lengthOf(stdout.match(new RegExp(resolution, "g")) ?? [], Object.keys(manifest.exports).length)
    })
  )
})

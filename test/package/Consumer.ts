/** A consumer's project: the published package, installed by npm from its tarball, and the examples. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Context, Effect, Layer } from "effect"
import { type Output, run } from "../lab/Process.ts"
import { temporaryFolder } from "../support/folders.ts"

export const checkout = Path.resolve(import.meta.dirname, "../..")

export class Consumer extends Context.Service<
  Consumer,
  {
    /** The contents of the tarball: `package.json`, `dist`. */
    readonly packed: string
    readonly tarball: string
    readonly project: string
    /** What npm installed beside a consumer's own `effect`. */
    readonly installed: ReadonlyArray<string>
  }
>()("test/Consumer") {
  static readonly layer = Layer.effect(
    Consumer,
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const packed = Path.join(folder, "packed")
      Fs.mkdirSync(packed)
      for (const name of ["package.json", "README.md", "LICENSE"])
        Fs.copyFileSync(Path.join(checkout, name), Path.join(packed, name))
      yield* succeed(process.execPath, [
        "--import",
        "tsx",
        "scripts/build/main.ts",
        Path.join(packed, "dist")
      ])
      const tarball = yield* pack(packed, folder)
      const koffi = yield* pack(Path.join(checkout, "node_modules/koffi"), folder)
      const project = Path.join(folder, "project")
      Fs.cpSync(Path.join(checkout, "examples"), project, { recursive: true })
      Fs.writeFileSync(Path.join(project, "package.json"), '{"private":true,"type":"module"}')
      // Without a registry: the package's dependencies are in the checkout.
      const offline = ["install", "--offline", "--ignore-scripts", "--omit=optional", "--legacy-peer-deps"]
      yield* succeed("npm", [...offline, tarball, koffi], project)
      const modules = Path.join(project, "node_modules")
      const installed = Fs.readdirSync(modules).filter((name) => !name.startsWith("."))
      for (const name of ["@effect", "@koromix", "@types", "effect", "fast-check", "hono"])
        Fs.symlinkSync(Path.join(checkout, "node_modules", name), Path.join(modules, name))
      return { packed, tarball, project, installed }
    }).pipe(Effect.orDie)
  )
}

/** Runs to its end, and dies with its output where it fails. */
export const succeed = Effect.fnUntraced(function* (
  command: string,
  args: ReadonlyArray<string>,
  cwd: string = checkout
): Effect.fn.Return<Output> {
  const output = yield* Effect.orDie(run(command, args, { cwd, timeoutMillis: 170_000 }))
  if (output.code === 0) return output
  return yield* Effect.die(new Error(`${[command, ...args].join(" ")}: ${output.stdout}${output.stderr}`))
})

const pack = (folder: string, destination: string): Effect.Effect<string> =>
  Effect.map(
    succeed("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", destination, folder]),
    ({ stdout }) => Path.join(destination, JSON.parse(stdout)[0].filename)
  )

/** Cloudflare's runtime on a loopback port of the system's choice, with one bundle in it. */
import * as Fs from "node:fs"
import { createRequire } from "node:module"
import * as Path from "node:path"
import { Effect } from "effect"
import { type BuildOptions, build } from "esbuild"
import { spawn } from "../lab/Running.ts"
import { temporaryFolder } from "./folders.ts"

/** One file for a runtime without Node's modules: an import of one fails here. Minified. */
export const bundle = (input: Pick<BuildOptions, "entryPoints" | "stdin">): Effect.Effect<string> =>
  Effect.promise(async () => {
    const { outputFiles } = await build({
      ...input,
      bundle: true,
      write: false,
      minify: true,
      format: "esm",
      platform: "neutral",
      mainFields: ["module", "main"]
    })
    return outputFiles[0]?.text ?? ""
  })

/** Durable Objects: the class of each by the name of its binding, and the folder that outlives the runtime. */
export interface Objects {
  readonly classes: Readonly<Record<string, string>>
  readonly folder: string
}

/** Serves until the scope closes, and returns its URL. */
export const serveWorker = Effect.fnUntraced(function* (source: string, objects?: Objects) {
  const folder = yield* temporaryFolder
  const config = Path.join(folder, "config.capnp")
  Fs.writeFileSync(Path.join(folder, "worker.js"), source)
  Fs.writeFileSync(config, configOf(objects))
  const running = yield* spawn(workerd, ["serve", "--control-fd=1", config])
  const line = yield* running.waitForLine('"listen"', { stream: "stdout", timeoutMillis: 60_000 })
  return `http://127.0.0.1:${JSON.parse(line).port}`
}, Effect.orDie)

const workerd: string = createRequire(import.meta.url)("workerd").default

/** `compatibilityDate` is one at which the runtime has none of Node's globals. */
const configOf = ({ classes, folder }: Objects = { classes: {}, folder: "/nonexistent" }): string => {
  const names = Object.entries(classes)
  const namespaces = names.map(
    ([, name]) => `(className = "${name}", uniqueKey = "${name}", enableSql = true)`
  )
  const bindings = names.map(([binding, name]) => `(name = "${binding}", durableObjectNamespace = "${name}")`)
  const disk = `(name = "disk", disk = (path = "${folder}", writable = true))`
  return `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)${names.length === 0 ? "" : `, ${disk}`}],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]
);
const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2025-06-01",
  durableObjectNamespaces = [${namespaces.join()}],
  ${names.length === 0 ? "" : 'durableObjectStorage = (localDisk = "disk"),'}
  bindings = [${bindings.join()}]
);
`
}

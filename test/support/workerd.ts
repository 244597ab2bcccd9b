/** Cloudflare's runtime on a loopback port of the system's choice, with one bundle in it. */
import * as Fs from "node:fs"
import { createRequire } from "node:module"
import * as Path from "node:path"
import { Effect } from "effect"
import { type BuildOptions, build } from "esbuild"
import { spawn } from "../lab/Running.ts"
import { temporaryFolder } from "./folders.ts"

/** One file for a runtime that has no module of Node: an import of one fails here. Minified. */
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

/** Serves until the scope closes, and returns its URL. `classes` are the bundle's Durable Objects, each on `name`. */
export const serveWorker = Effect.fnUntraced(function* (
  source: string,
  classes: Readonly<Record<string, string>> = {}
) {
  const folder = yield* temporaryFolder
  Fs.writeFileSync(Path.join(folder, "worker.js"), source)
  Fs.writeFileSync(Path.join(folder, "config.capnp"), configOf(classes))
  const running = yield* spawn(workerd, ["serve", "--control-fd=1", Path.join(folder, "config.capnp")])
  const line = yield* running.waitForLine('"listen"', { stream: "stdout", timeoutMillis: 60_000 })
  return `http://127.0.0.1:${JSON.parse(line).port}`
}, Effect.orDie)

const workerd: string = createRequire(import.meta.url)("workerd").default

/** Before `nodejs_compat` was on by default: no `Buffer`, no `process`. */
const configOf = (classes: Readonly<Record<string, string>>): string => `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]
);
const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2025-06-01",
  durableObjectNamespaces = [${Object.values(classes)
    .map((name) => `(className = "${name}", uniqueKey = "${name}", enableSql = true)`)
    .join()}],
  durableObjectStorage = (inMemory = void),
  bindings = [${Object.entries(classes)
    .map(([binding, name]) => `(name = "${binding}", durableObjectNamespace = "${name}")`)
    .join()}]
);
`

/**
 * `npm run build [-- FOLDER]`: builds `dist/`, or that folder, as it is published. The library keeps its modules
 * and its dependency on `effect`, whose services it shares with the program that imports it; the executables are
 * bundles, since they must start fast.
 */
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { build, type Plugin } from "vite"
import { builtins } from "./builtins.ts"
import { closures, type Roots } from "./closures.ts"
import { importEffectModules } from "./effectModules.ts"
import { makeNotices } from "./notices.ts"
import { buildPage } from "./page.ts"

const root = Path.resolve(import.meta.dirname, "../..")
const built = Path.resolve(process.argv[2] ?? Path.join(root, "dist"))
const begun = new Date()
/** Replaces `built` once it is complete. */
const dist = `${built}.${process.pid}`
process.on("exit", () => Fs.rmSync(dist, { recursive: true, force: true }))

const compiler = Path.join(root, "node_modules/typescript/bin/tsc")
const project = Path.join(import.meta.dirname, "tsconfig.json")
execFileSync(process.execPath, [compiler, "-p", project, "--outDir", dist], { cwd: root, stdio: "inherit" })
importEffectModules(dist)

const source = (path: string) => Path.join(root, "adapters", path)

const notices = makeNotices()

interface Bundling {
  readonly plugins?: ReadonlyArray<Plugin>
  readonly chunks?: Record<string, Roots>
  /** Otherwise only returned, as one file. */
  readonly write?: boolean
}

const bundle = (input: Record<string, string>, { plugins = [], chunks, write = true }: Bundling = {}) => {
  const { plugin, groups } = closures(chunks ?? {})
  return build({
    root,
    configFile: false,
    logLevel: "warn",
    plugins: [...plugins, builtins, plugin, notices.plugin],
    ssr: { noExternal: true, external: ["koffi"] },
    build: {
      ssr: true,
      target: "node24",
      outDir: Path.join(dist, "bin"),
      emptyOutDir: false,
      write,
      minify: false,
      rollupOptions: {
        input,
        onLog: (level, log) => {
          if (log.code === "IMPORT_IS_UNDEFINED") throw new Error(log.message)
          if (level === "warn") console.warn(log.message)
        },
        output: {
          entryFileNames: "[name].js",
          chunkFileNames: "chunks/[name]-[hash].js",
          codeSplitting: write ? { groups } : false
        }
      }
    }
  })
}

/** The program of the relay's threads, as a text in the bundle: a thread may start when the files are gone. */
const threadText = async (): Promise<Plugin> => {
  const { output } = (await bundle({ thread: source("relay/thread/main.ts") }, { write: false })) as {
    readonly output: ReadonlyArray<{ readonly code?: string }>
  }
  const [{ code } = {}, ...others] = output
  if (code === undefined || others.length > 0) throw new Error("the relay's thread is not one file")
  const program = source("relay/threadProgram.ts")
  return {
    name: "thread-text",
    enforce: "pre",
    load: (id) => (id === program ? `export const threadProgram = ${JSON.stringify(code)}` : null)
  }
}

/** Loaded only where `--cluster` is given. */
const cluster = [source("cli/clustering.ts"), source("cli/expelHost.ts")]

// Few files, since loading each costs start time.
await bundle(
  { portmapper: source("cli/main.ts") },
  {
    plugins: [await threadText()],
    chunks: {
      command: () => [source("cli/commands.ts")],
      serving: (loadedLaterBy) => loadedLaterBy(source("cli/serve.ts")).filter((id) => !cluster.includes(id)),
      cluster: () => cluster
    }
  }
)

await bundle({ "portmapper-cni": source("cni/main.ts") })

Fs.writeFileSync(Path.join(dist, "bin/page.html"), await buildPage([notices.plugin]))

Fs.writeFileSync(Path.join(dist, "bin/THIRD-PARTY-NOTICES"), notices.text())

for (const name of ["portmapper", "portmapper-cni"]) Fs.chmodSync(Path.join(dist, "bin", `${name}.js`), 0o755)

// Runtimes run the shell script, which needs no Node; it falls back to the Node program beside it.
const [before, after, ...more] = Fs.readFileSync(source("cni/front.sh"), "utf8").split("/main.ts")
if (before === undefined || after === undefined || more.length > 0)
  throw new Error("front.sh does not name the program once")
Fs.writeFileSync(Path.join(dist, "bin/portmapper-cni"), `${before}/portmapper-cni.js${after}`)
Fs.chmodSync(Path.join(dist, "bin/portmapper-cni"), 0o755)

// Dated before the build began, so that a source changed during the build counts as newer.
Fs.utimesSync(Path.join(dist, "bin/portmapper.js"), begun, begun)
Fs.rmSync(built, { recursive: true, force: true })
Fs.renameSync(dist, built)

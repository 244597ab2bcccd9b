/**
 * `npm run build`: `dist/` as it is published. The library keeps its modules and its dependency on `effect`, whose services
 * are shared with the program that imports it; the executables are bundles, since they have to start fast.
 */
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { build, type Plugin } from "vite"

const root = Path.resolve(import.meta.dirname, "../..")
const dist = Path.join(root, "dist")

Fs.rmSync(dist, { recursive: true, force: true })

execFileSync(
  process.execPath,
  [Path.join(root, "node_modules/typescript/bin/tsc"), "-p", Path.join(import.meta.dirname, "tsconfig.json")],
  {
    cwd: root,
    stdio: "inherit"
  }
)

const bundle = (input: Record<string, string>, plugins: ReadonlyArray<Plugin> = []) =>
  build({
    root,
    configFile: false,
    logLevel: "warn",
    plugins: [...plugins],
    ssr: { noExternal: true, external: ["koffi"] },
    build: {
      ssr: true,
      target: "node24",
      outDir: Path.join(dist, "bin"),
      emptyOutDir: false,
      minify: false,
      rollupOptions: {
        input,
        output: { entryFileNames: "[name].js", chunkFileNames: "chunks/[name]-[hash].js" }
      }
    }
  })

await bundle({
  portmapper: Path.join(root, "adapters/cli/main.ts"),
  // Looked for beside the chunk that starts it; it shares with that one nothing that would load Effect.
  "chunks/threadMain": Path.join(root, "adapters/relay/threadMain.ts"),
  "chunks/cniStandalone": Path.join(root, "adapters/cni/Standalone.ts")
})

// One file, since each that is loaded at a start takes its time; what it seldom needs is the other bundle's.
await bundle({ "portmapper-cni": Path.join(root, "adapters/cni/main.ts") }, [
  {
    name: "standalone-apart",
    enforce: "pre",
    resolveId: (id) =>
      id === "./Standalone.ts" ? { id: "./chunks/cniStandalone.js", external: "relative" } : null
  }
])

for (const name of ["portmapper", "portmapper-cni"]) Fs.chmodSync(Path.join(dist, "bin", `${name}.js`), 0o755)

/**
 * `npm run build`: `dist/` as it is published. The library keeps its modules and its dependency on `effect`, whose services
 * are shared with the program that imports it; the executable is one bundle, since it has to start fast.
 */
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { build } from "vite"

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

await build({
  root,
  configFile: false,
  logLevel: "warn",
  ssr: { noExternal: true, external: ["koffi"] },
  build: {
    ssr: true,
    target: "node24",
    outDir: Path.join(dist, "bin"),
    emptyOutDir: true,
    minify: false,
    rollupOptions: {
      input: {
        portmapper: Path.join(root, "adapters/cli/main.ts"),
        // Looked for beside the chunk that starts it; it shares with that one nothing that would load Effect.
        "chunks/relayThread": Path.join(root, "adapters/relay/relayThread.ts")
      },
      output: { entryFileNames: "[name].js", chunkFileNames: "chunks/[name]-[hash].js" }
    }
  }
})

const executable = Path.join(dist, "bin/portmapper.js")
Fs.chmodSync(executable, 0o755)

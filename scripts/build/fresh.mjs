/**
 * For `npm ci` (its `prepare`) and for scripts that run the program: builds `dist/` if it is missing or older than
 * a source. If only runtime dependencies are installed, `prepare` does nothing. JavaScript, since an older Node may
 * run it during an install.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname ?? Path.dirname(new URL(import.meta.url).pathname), "../..")
const sources = ["src", "adapters", "scripts/build", "package.json", "package-lock.json", "tsconfig.json"]

/** A folder also counts as newer after an entry was removed from it. */
const newestOf = (path) => {
  if (path.endsWith(".md")) return 0
  const stats = Fs.statSync(path)
  if (!stats.isDirectory()) return stats.mtimeMs
  return Math.max(stats.mtimeMs, ...Fs.readdirSync(path).map((name) => newestOf(Path.join(path, name))))
}

const builtAt =
  Fs.statSync(Path.join(root, "dist/bin/portmapper.js"), { throwIfNoEntry: false })?.mtimeMs ?? 0
const isFresh = () => sources.every((path) => newestOf(Path.join(root, path)) <= builtAt)
const lacks = ["vite", "typescript", "tsx"].filter(
  (name) => !Fs.existsSync(Path.join(root, "node_modules", name))
)

if (lacks.length > 0) {
  if (builtAt === 0 && process.env.npm_lifecycle_event !== "prepare") {
    console.error(`portmapper: it is not built, and the build needs ${lacks.join(", ")}; run: npm ci`)
    process.exit(1)
  }
} else if (!isFresh()) {
  // The checkout's owner also owns the build, though root may run it.
  const { uid, gid } = Fs.statSync(root)
  const owner = process.getuid?.() === 0 ? { uid, gid } : {}
  // The Node that the build targets, whichever runs this script.
  const bundled = Path.join(root, "node_modules/node/bin/node")
  const node = Fs.existsSync(bundled) ? bundled : process.execPath
  // Only the program's own output belongs on stdout.
  const { status } = spawnSync(node, ["--import", "tsx", "scripts/build/main.ts"], {
    ...owner,
    cwd: root,
    stdio: ["ignore", 2, 2]
  })
  process.exit(status ?? 1)
}

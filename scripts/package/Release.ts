/** What all packages of one build share: the version, its date, and tools that make the same bytes of it each time. */
import { execFileSync, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import manifest from "../../package.json" with { type: "json" }

export const root = Path.resolve(import.meta.dirname, "../..")

export const version = process.env["PORTMAPPER_PACKAGE_VERSION"] ?? manifest.version

/** What a command prints. It runs in the checkout. */
export const output = (command: string, ...args: ReadonlyArray<string>): string =>
  execFileSync(command, args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
    stdio: ["ignore", "pipe", "inherit"]
  }).trimEnd()

/** Ends the process where a command is lacking, and names the packages of Debian that have it. */
export const requireCommands = (debian: Readonly<Record<string, string>>): void => {
  const lacks = Object.keys(debian).filter(
    (command) => spawnSync(command, ["--version"], { stdio: "ignore" }).status !== 0
  )
  if (lacks.length === 0) return
  const packages = lacks.map((command) => debian[command]).join(" ")
  console.error(`package: it needs ${lacks.join(" and ")}; on Debian: apt install ${packages}`)
  process.exit(1)
}

/** Of Debian's name. */
export const architecture = (): string => output("dpkg", "--print-architecture")

/** The commit's date, unless the builder sets another. */
const epoch = Number(process.env["SOURCE_DATE_EPOCH"] ?? output("git", "log", "-1", "--format=%ct"))
export const date = new Date(epoch * 1000)
process.env["SOURCE_DATE_EPOCH"] = String(epoch)

/** Where packages are put, below the checkout. */
export const packagePath = (ending: string): string => {
  Fs.mkdirSync(Path.join(root, "packages"), { recursive: true })
  return `packages/portmapper_${version}_${architecture()}.${ending}`
}

/** A folder that is removed at the end. */
export const temporary = (what: string): string => {
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), `portmapper-${what}-`))
  process.on("exit", () => Fs.rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Neither the machine's umask nor its clock affects a package. */
export const level = (path: string): void => {
  const stats = Fs.lstatSync(path)
  if (stats.isDirectory()) {
    Fs.chmodSync(path, 0o755)
    for (const name of Fs.readdirSync(path)) level(Path.join(path, name))
  }
  Fs.lutimesSync(path, date, date)
}

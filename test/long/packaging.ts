/** Packages as `npm run package` makes them. */
import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export const root = join(import.meta.dirname, "../..")

/** Makes one, and returns its path. */
export const makePackage = (
  kind: "deb" | "image" | "plugin",
  env: Readonly<Record<string, string>> = {}
): string => {
  const options = { cwd: root, env: { ...process.env, ...env }, encoding: "utf8" } as const
  return join(root, execFileSync("npm", ["run", "-s", "package", "--", kind], options).trim())
}

/** Changes of a release against the one before. */
export interface Changes {
  readonly handover?: true
  readonly record?: true
}

/** Writes a later release: the package with another version, whose program has these changes. */
export const deriveRelease = (from: string, to: string, version: string, changes: Changes = {}): void => {
  const folder = mkdtempSync(join(tmpdir(), "portmapper-release-"))
  execFileSync("dpkg-deb", ["--raw-extract", from, folder])
  const edit = (path: string, pattern: RegExp, by: string) => {
    const text = readFileSync(join(folder, path), "utf8")
    if (!pattern.test(text)) throw new Error(`${path} has no ${pattern}`)
    writeFileSync(join(folder, path), text.replace(pattern, by))
  }
  const lib = "usr/lib/portmapper"
  const serving = readdirSync(join(folder, lib, "bin/chunks"))
    .filter((name) => name.startsWith("serving-"))
    .map((name) => `${lib}/bin/chunks/${name}`)
    .find((path) => readFileSync(join(folder, path), "utf8").includes("PRAGMA application_id"))
  edit("DEBIAN/control", /^Version: .*$/m, `Version: ${version}`)
  if (changes.handover === true) {
    edit(serving ?? "", /asked === 2 /, "asked === 3 ")
    edit(serving ?? "", /(_tag: "Hello",\s*version:) 2/, "$1 3")
  }
  if (changes.record === true) {
    const next = Number(readFileSync(join(folder, lib, "record"), "utf8")) + 1
    edit(serving ?? "", /(var migrations = \[[\s\S]*?)\s*\];/, "$1, `CREATE TABLE note (text TEXT) STRICT`];")
    edit(`${lib}/record`, /\d+/, `${next}`)
    edit("DEBIAN/preinst", /reads=\d+/, `reads=${next}`)
  }
  execFileSync("dpkg-deb", ["--root-owner-group", "-Znone", "--build", folder, to], { stdio: "ignore" })
  rmSync(folder, { recursive: true })
}

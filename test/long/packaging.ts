/** Packages as `npm run package` makes them. */
import { execFileSync } from "node:child_process"
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

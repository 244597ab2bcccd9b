/**
 * What needs root, a mount or a namespace: where it is not to be had the test is skipped, aloud; with
 * `PORTMAPPER_REQUIRE_LAB=1` a skip is a failure.
 */
import { spawnSync } from "node:child_process"
import { it } from "@effect/vitest"

const required = process.env["PORTMAPPER_REQUIRE_LAB"] === "1"

/** `why` is why the lab can't be had; `undefined` where it can. */
export const labTest = (title: string, why: string | undefined, run: () => Promise<void>): void => {
  if (why === undefined) it(title, run)
  else if (required)
    it(title, () => {
      throw new Error(`the lab is required, and can't be had: ${why}`)
    })
  else {
    process.stderr.write(`skipped: ${title}: ${why}\n`)
    it.skip(`${title} (skipped: ${why})`, run)
  }
}

/** Why no file system can be mounted in a namespace of one's own. */
export const noPrivateMounts = (): string | undefined => {
  const tried = spawnSync("unshare", ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"], {
    encoding: "utf8"
  })
  if (tried.error !== undefined) return tried.error.message
  return tried.status === 0 ? undefined : `mounting is refused: ${tried.stderr.trim()}`
}

/** Why this command can't be run. */
export const noCommand = (command: string, ...args: ReadonlyArray<string>): string | undefined =>
  spawnSync(command, args, { stdio: "ignore" }).error === undefined
    ? undefined
    : `${command} is not installed`

/** Why this command can't be run in a network namespace of one's own. */
export const noNetworkOfOnesOwn = (command = "true"): string | undefined => {
  const tried = spawnSync("unshare", ["--net", command, "--version"], { encoding: "utf8" })
  if (tried.error !== undefined) return tried.error.message
  return tried.status === 0 ? undefined : `a network namespace is refused: ${tried.stderr.trim()}`
}

/** What a test needs of its host beyond Node. Where it is missing the test is skipped, and says so; in the lab it fails. */
import { spawnSync } from "node:child_process"

const required = process.env["PORTMAPPER_REQUIRE_LAB"] === "1"

/** Whether to skip what needs this command. Throws where `PORTMAPPER_REQUIRE_LAB=1` wants it there. */
export const missing = (command: string, ...args: ReadonlyArray<string>): boolean => {
  if (spawnSync(command, args, { stdio: "ignore" }).error === undefined) return false
  const reason = `${command} is not installed`
  if (required) throw new Error(`${reason}, and PORTMAPPER_REQUIRE_LAB=1 requires it`)
  process.stderr.write(`SKIPPED: ${reason}\n`)
  return true
}

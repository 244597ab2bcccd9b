/**
 * A network namespace for a test file. The thread that runs the file leaves the machine's namespace before any test
 * starts, its children follow it, and the kernel removes the namespace with the last of them: nothing to clean up, and
 * no effect on the machine's own.
 */
import { execFileSync } from "node:child_process"
import { readlinkSync } from "node:fs"
import { CLONE_NEWNET, libc } from "../../adapters/linux/Libc.ts"
import type { Need } from "../lab/Capabilities.ts"
import { describeLab } from "../lab/describeLab.ts"

/** `describeLab` in its own namespace; once per file. */
export const describeInNamespace = (
  title: string,
  tests: () => void,
  needs: ReadonlyArray<Need> = []
): void =>
  describeLab(title, needs, () => {
    enter()
    tests()
  })

/** Runs `ip ARGUMENTS` in this file's namespace. */
export const ip = (command: string): string => run(`ip ${command}`)

/** Runs a command, its words separated by spaces, in this file's namespace; returns its output. */
export const run = (command: string, input = ""): string => {
  const [file = "", ...words] = command.split(" ")
  return execFileSync(file, words, {
    encoding: "utf8",
    input,
    stdio: ["pipe", "pipe", "pipe"],
    env: environment
  })
}

const environment = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin`, LC_ALL: "C" }

/** Moves this thread into a new namespace, with the loopback interface up. */
const enter = (): void => {
  const machine = readlinkSync("/proc/thread-self/ns/net")
  const result = libc().unshare(CLONE_NEWNET)
  if (result < 0) throw libc().errno("unshare", result)
  if (readlinkSync("/proc/thread-self/ns/net") === machine)
    throw new Error("still in the machine's own namespace")
  ip("link set lo up")
}

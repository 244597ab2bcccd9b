/**
 * A network namespace for a test file. The thread that runs the file leaves the machine's own before any test starts, its
 * children follow it, and the kernel takes the namespace away with the last of them: nothing to clean up, and
 * nothing of the machine's to touch.
 */
import { execFileSync } from "node:child_process"
import { readlinkSync } from "node:fs"
import { CLONE_NEWNET, libc } from "../../adapters/linux/Libc.ts"
import type { Need } from "../lab/Capabilities.ts"
import { describeLab } from "../lab/describeLab.ts"

/** `describeLab` in a namespace of its own; once per file. */
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

/** Runs a command, its words separated by spaces, in this file's namespace; the text it wrote. */
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

/** Takes this thread into a new namespace, whose loopback interface is up. */
const enter = (): void => {
  const machine = readlinkSync("/proc/thread-self/ns/net")
  const result = libc().unshare(CLONE_NEWNET)
  if (result < 0) throw libc().errno("unshare", result)
  if (readlinkSync("/proc/thread-self/ns/net") === machine)
    throw new Error("still in the machine's own namespace")
  ip("link set lo up")
}

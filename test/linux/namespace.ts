/**
 * A network namespace for a test file. The thread that runs the file leaves the machine's own before any test starts, its
 * children follow it, and the kernel takes the namespace away with the last of them: nothing to clean up, and
 * nothing of the machine's to touch.
 */
import { execFileSync } from "node:child_process"
import { readlinkSync } from "node:fs"
import { describe, it } from "@effect/vitest"
import { CLONE_NEWNET, libc } from "../../adapters/linux/Libc.ts"

const { PATH, PORTMAPPER_REQUIRE_LAB } = process.env

/**
 * `describe` in a namespace of its own; once per file. Where that cannot be had, the suite is skipped and says so, or
 * fails where PORTMAPPER_REQUIRE_LAB=1.
 */
export const describeInNamespace = (name: string, body: () => void): void => {
  const missing = enter()
  if (missing === undefined) {
    describe(name, body)
  } else if (PORTMAPPER_REQUIRE_LAB === "1") {
    describe(name, () => {
      it(`runs in a network namespace: ${missing}`, () => {
        throw new Error(missing)
      })
    })
  } else {
    process.stderr.write(`SKIPPED: ${name}: ${missing}\n`)
    describe(name, () => {
      it.skip(`skipped: ${missing}`, () => {})
    })
  }
}

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

const environment = { ...process.env, PATH: `${PATH}:/usr/sbin:/sbin`, LC_ALL: "C" }

/** What is missing, or `undefined` once this thread is in a new namespace with its loopback interface up. */
const enter = (): string | undefined => {
  if (process.platform !== "linux") return "this is not Linux"
  if (process.geteuid?.() !== 0) return "this is not root"
  try {
    run("ip -V")
    run("nft --version")
  } catch (error) {
    return `ip and nft are needed: ${error instanceof Error ? error.message : String(error)}`
  }
  const machine = readlinkSync("/proc/thread-self/ns/net")
  const result = libc().unshare(CLONE_NEWNET)
  if (result < 0) return libc().errno("unshare", result).message
  if (readlinkSync("/proc/thread-self/ns/net") === machine)
    throw new Error("still in the machine's own namespace")
  ip("link set lo up")
  return undefined
}

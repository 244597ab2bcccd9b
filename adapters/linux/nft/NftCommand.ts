/** Finds commands, and runs `nft` as a child process: it loads a table from text, in one transaction. */
import { spawn } from "node:child_process"
import { accessSync, constants } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { FirewallError } from "../../../src/firewall/Firewall.ts"
import { attempt } from "../../node/FileText.ts"

/** A child that takes longer is killed; the caller must check whether its transaction was committed. */
const longestMillis = 10_000

/** Where administrators' commands are, which are seldom on the `PATH` of users other than root. */
export const usualPlaces = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"]

/** The file of a command; `undefined` if it is not installed. */
export const findCommand = (name: string, path = process.env["PATH"] ?? ""): string | undefined =>
  [...path.split(":"), ...usualPlaces]
    .filter((folder) => folder !== "")
    .map((folder) => join(folder, name))
    .find((file) => attempt(() => accessSync(file, constants.X_OK) ?? true))

export const loadByNft = (nft: string, operation: string, text: string): Effect.Effect<void, FirewallError> =>
  Effect.callback<void, FirewallError>((resume) => {
    const failed = (detail: string) =>
      resume(Effect.fail(new FirewallError({ reason: reasonOf(detail), operation, detail })))
    const child = spawn(nft, ["-f", "-"], {
      stdio: ["pipe", "ignore", "pipe"],
      env: { LC_ALL: "C" },
      timeout: longestMillis,
      killSignal: "SIGKILL"
    })
    let words = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      words += text
    })
    child.stdin.on("error", () => {})
    child.stdin.end(text)
    child.on("error", (error) => failed(`${nft}: ${error.message}`))
    child.on("close", (code, signal) => {
      if (code === 0) resume(Effect.void)
      else if (signal !== null) failed(`${nft} was ended by ${signal}`)
      else failed(`nft: ${firstError(words)}`)
    })
  })

/** The first of several errors, without its position in our generated text. */
const firstError = (words: string): string =>
  /Error: (.+)/i.exec(words)?.[1] ?? words.split("\n").find((line) => line !== "") ?? "no reason given"

const reasonOf = (detail: string): FirewallError["reason"] => {
  if (/operation not permitted|permission denied/i.test(detail)) return "Denied"
  if (/not supported|unknown/i.test(detail)) return "Unsupported"
  if (/no buffer space|cannot allocate memory|resource temporarily|too long/i.test(detail)) return "Busy"
  return "Failed"
}

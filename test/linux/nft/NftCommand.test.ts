import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { findCommand, loadByNft } from "../../../adapters/linux/nft/NftCommand.ts"
import { temporaryFolder } from "../../support/folders.ts"

/** A program that a shell runs in place of nft. */
const program = (folder: string, text: string, mode = 0o755): string => {
  const path = Path.join(folder, "nft")
  Fs.mkdirSync(folder, { recursive: true })
  Fs.writeFileSync(path, `#!/bin/sh\n${text}\n`)
  Fs.chmodSync(path, mode)
  return path
}

describe("the nft command", () => {
  it.live("is the first on the PATH that can be run, else at a usual place", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const [none, other, own] = ["none", "other", "own"].map((name) => Path.join(folder, name))
      program(other ?? "", "exit", 0o644)
      const path = program(own ?? "", "exit")
      assert.strictEqual(findCommand("nft", [none, "", other, own].join(":")), path)
      // An empty part of a PATH is not the working directory.
      const before = process.cwd()
      process.chdir(own ?? "")
      assert.notStrictEqual(findCommand("nft", `${none}:${other}:`), "nft")
      process.chdir(before)
      assert.match(findCommand("nft", "") ?? "/usr/sbin/nft", /^\/(usr\/)?(local\/)?s?bin\/nft$/)
    })
  )

  it.live("gets the text on its standard input, and fails with its first error", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const load = (script: string) => loadByNft(program(folder, script), "compiling x", "table inet x {}\n")
      yield* load(`test "$1 $2" = "-f -" && cat >${folder}/text`)
      assert.strictEqual(Fs.readFileSync(`${folder}/text`, "utf8"), "table inet x {}\n")
      for (const [script, reason, detail] of [
        [
          "echo '/dev/stdin:1:7-9: Error: Could not process rule: Operation not permitted' >&2; echo 'Error: two' >&2; exit 1",
          "Denied",
          "nft: Could not process rule: Operation not permitted"
        ],
        ["echo 'Error: Operation not supported' >&2; exit 1", "Unsupported", "nft: Operation not supported"],
        ["echo 'Error: unknown chain type' >&2; exit 1", "Unsupported", "nft: unknown chain type"],
        ["echo 'Error: No buffer space available' >&2; exit 1", "Busy", "nft: No buffer space available"],
        ["echo >&2; echo netlink: broken >&2; exit 3", "Failed", "nft: netlink: broken"],
        ["exit 1", "Failed", "nft: no reason given"],
        ["kill -KILL $$", "Failed", `${folder}/nft was ended by SIGKILL`]
      ] as const) {
        const error = yield* Effect.flip(load(script))
        assert.deepStrictEqual([error.reason, error.message], [reason, `compiling x failed: ${detail}`])
      }
      const gone = yield* Effect.flip(loadByNft("/no/such/nft", "compiling x", ""))
      assert.strictEqual(gone.message, "compiling x failed: /no/such/nft: spawn /no/such/nft ENOENT")
    })
  )
})

import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  prepareDirectory,
  touchPrivateUnsafe,
  writeAtomicallyUnsafe
} from "../../adapters/node/StateDirectory.ts"
import { temporaryFolder } from "../support/folders.ts"

const modeOf = (path: string) => (Fs.statSync(path).mode & 0o777).toString(8)

describe("the state directory", () => {
  it.live("is made for its user alone, and refused where others own it or may write to it", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* temporaryFolder, "a", "state")
      const why = Effect.map(Effect.flip(prepareDirectory(directory)), ({ message }) =>
        message.replace(`preparing the state directory failed: ${directory}`, "it")
      )
      for (let time = 0; time < 2; time++) yield* prepareDirectory(directory)
      assert.strictEqual(modeOf(directory), "700")
      // What is in it is private.
      Fs.chmodSync(directory, 0o755)
      yield* prepareDirectory(directory)
      assert.strictEqual(modeOf(directory), "755")
      for (const mode of [0o777, 0o720]) {
        Fs.chmodSync(directory, mode)
        assert.strictEqual(
          yield* why,
          `it can be written by others (mode ${mode.toString(8)}); use chmod 700`
        )
      }
      Fs.chmodSync(directory, 0o700)
      if (process.getuid?.() !== 0) return
      Fs.chownSync(directory, 65534, 65534)
      assert.strictEqual(yield* why, "it belongs to user 65534, this process to user 0")
    })
  )

  it.live("has private files: made so, or made so again, and replaced as a whole", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const file = Path.join(folder, "file")
      touchPrivateUnsafe(file)
      Fs.writeFileSync(file, "kept")
      Fs.chmodSync(file, 0o644)
      touchPrivateUnsafe(file)
      assert.deepStrictEqual([modeOf(file), Fs.readFileSync(file, "utf8")], ["600", "kept"])
      assert.throws(() => touchPrivateUnsafe(folder), `${folder} is not a file`)
      const reader = Fs.openSync(file, "r")
      writeAtomicallyUnsafe(file, "new")
      assert.deepStrictEqual([modeOf(file), Fs.readFileSync(file, "utf8")], ["600", "new"])
      assert.strictEqual(Fs.readFileSync(reader, "utf8"), "kept")
      Fs.closeSync(reader)
      Fs.mkdirSync(Path.join(folder, "busy"))
      assert.throws(() => writeAtomicallyUnsafe(Path.join(folder, "busy"), "x"), "EISDIR")
      assert.deepStrictEqual(Fs.readdirSync(folder).sort(), ["busy", "file"])
    })
  )
})

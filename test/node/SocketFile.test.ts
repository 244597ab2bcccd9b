import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { isOwnFile, removeOwnFile, untilRemoved } from "../../adapters/node/SocketFile.ts"
import { temporaryFolder } from "../support/folders.ts"

describe("the file of a socket", () => {
  it.effect("is ours by its inode alone, and is removed only if it is ours", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const [own, other] = ["own", "other"].map((name) => Path.join(folder, name)) as [string, string]
      for (const path of [own, other]) Fs.writeFileSync(path, "")
      const { ino } = Fs.statSync(own)
      assert.deepStrictEqual(
        [own, other, Path.join(folder, "none"), Path.join(own, "below")].map((path) => isOwnFile(path, ino)),
        [true, false, false, false]
      )
      for (const path of [other, own]) removeOwnFile(path, ino)
      assert.deepStrictEqual(Fs.readdirSync(folder), ["other"])
    })
  )

  it.effect("is missed within a second of its replacement", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      Fs.writeFileSync(path, "")
      const missed = yield* Effect.forkChild(untilRemoved(path, Fs.statSync(path).ino), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(missed.pollUnsafe())
      Fs.writeFileSync(`${path}.other`, "")
      Fs.renameSync(`${path}.other`, path)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(missed)
    })
  )
})

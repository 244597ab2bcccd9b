import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { makeFolderUnsafe } from "../../adapters/node/makeFolder.ts"
import { temporaryFolder } from "../support/folders.ts"

it.live("a folder is made with those above it that are missing, or the reason is thrown", () =>
  Effect.gen(function* () {
    const folder = yield* temporaryFolder
    const modeOf = (...parts: ReadonlyArray<string>) => Fs.statSync(Path.join(folder, ...parts)).mode & 0o777
    for (let time = 0; time < 2; time++) makeFolderUnsafe(Path.join(folder, "a", "b"), 0o700)
    makeFolderUnsafe(Path.join(folder, "a"), 0o755)
    assert.deepStrictEqual([modeOf("a"), modeOf("a", "b")], [0o700, 0o700])
    Fs.symlinkSync("a", Path.join(folder, "link"))
    makeFolderUnsafe(Path.join(folder, "link", "c"), 0o700)
    assert.deepStrictEqual(Fs.readdirSync(Path.join(folder, "a")), ["b", "c"])
    Fs.writeFileSync(Path.join(folder, "file"), "")
    assert.throws(() => makeFolderUnsafe(Path.join(folder, "file"), 0o700), "EEXIST")
    assert.throws(() => makeFolderUnsafe(Path.join(folder, "file", "d"), 0o700), "EEXIST")
    // The folder above exists, and the kernel says that it does not.
    assert.throws(() => makeFolderUnsafe("/proc/portmapper/x", 0o700), "ENOENT")
  })
)

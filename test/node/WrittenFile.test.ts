import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { removeWritten } from "../../adapters/node/WrittenFile.ts"
import { temporaryFolder } from "../support/folders.ts"

it.live("a file that this program wrote is removed while nobody has changed it", () =>
  Effect.gen(function* () {
    const folder = yield* temporaryFolder
    const files = ["same", "changed", "folder", "none"].map((name) => Path.join(folder, name))
    const [same = "", changed = "", inTheWay = ""] = files
    Fs.writeFileSync(same, "ours")
    Fs.writeFileSync(changed, "ours, and theirs")
    Fs.mkdirSync(inTheWay)
    for (const path of files) removeWritten({ path, content: "ours" })
    assert.deepStrictEqual(Fs.readdirSync(folder).sort(), ["changed", "folder"])
  })
)

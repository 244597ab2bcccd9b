/** The faults that are kept as patches: whether they are found, `scripts/mutations.ts` tries; here they still fit. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"

const root = Path.resolve(import.meta.dirname, "../..")
const folder = Path.join(import.meta.dirname, "mutations")
const files = Fs.readdirSync(folder).filter((file) => file.endsWith(".patch"))

/** The parts of a source that a patch changes, as they are before it. */
const before = (patch: string) =>
  patch
    .split(/^--- a\//m)
    .slice(1)
    .flatMap((change) => {
      const [path = "", ...lines] = change.split("\n")
      const parts = lines
        .slice(1)
        .join("\n")
        .split(/^@@.*\n/m)
      return parts.slice(1).map((part) => ({
        path,
        text: part
          .split("\n")
          .filter((line) => /^[ -]/.test(line))
          .map((line) => line.slice(1))
          .join("\n")
      }))
    })

describe("the faults kept as patches", () => {
  it("are twenty at least", () => assert.isAtLeast(files.length, 20))

  it("fit the sources as they are", () => {
    for (const file of files) {
      const parts = before(Fs.readFileSync(Path.join(folder, file), "utf8"))
      assert.isNotEmpty(parts, file)
      for (const { path, text } of parts)
        assert.include(Fs.readFileSync(Path.join(root, path), "utf8"), text, `${file}: ${path}`)
    }
  })
})

/** Time comes from `Clock`, so that tests control it; the relay's thread and the page in a browser run outside Effect. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"

it("only files of the relay's thread and of the page in a browser read the system's time", () => {
  const root = Path.join(import.meta.dirname, "..")
  const reading = ["src", "adapters"]
    .flatMap((folder) =>
      Fs.readdirSync(Path.join(root, folder), { recursive: true, encoding: "utf8" }).map((file) =>
        Path.join(folder, file)
      )
    )
    .filter((file) => file.endsWith(".ts") && !/^adapters\/(relay\/thread|page\/app)\//.test(file))
    .filter((file) =>
      /\bDate\.now\b|\bperformance\.now\b|\bhrtime\b|new Date\(\)/.test(
        Fs.readFileSync(Path.join(root, file), "utf8")
      )
    )
  assert.deepStrictEqual(reading, [])
})

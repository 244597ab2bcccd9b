/** What can be checked of the Debian package without building it; `npm run test:long` installs and upgrades it. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { manualPages, optionTables } from "../../scripts/package/Manual.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { portmapper } from "../support/command.ts"

const deploy = join(import.meta.dirname, "../../deploy")

/** The options in the order of a text's lines, each once. */
const optionsIn = (text: string, pattern: RegExp): ReadonlyArray<string> => [
  ...new Set([...text.matchAll(pattern)].map(([, name = ""]) => name.replaceAll("\\-", "-")))
]

it.live(
  "help, manual pages, docs/OPTIONS.md and completions have the same options, help and pages the same variables",
  () =>
    Effect.gen(function* () {
      const pages = yield* Effect.promise(() => manualPages("1.2.3", "2026-01-02"))
      const tables = yield* Effect.promise(optionTables)
      yield* Effect.promise(() => expect(tables).toMatchFileSnapshot("../../docs/OPTIONS.md"))
      const everywhere = optionsIn(tables.split("## Every command")[1] ?? "", /`(?:-\w, )?(--[a-z-]+)/g)
      assert.deepStrictEqual(everywhere, ["--help", "--version", "--completions", "--log-level"])
      const script = (yield* portmapper(["--completions", "bash"])).stdout
      const commands = pages.map(({ file }) => file.replace(/\.1$/, ""))
      for (const name of ["portmapper", "portmapper-serve", "portmapper-map", "portmapper-cni-install"])
        assert.include(commands, name)
      yield* Effect.forEach(
        pages,
        ({ file, text }) =>
          Effect.gen(function* () {
            const words = file.replace(/\.1$/, "").split("-")
            const { stdout } = yield* portmapper([...words.slice(1), "--help"])
            const shown = optionsIn(stdout, /^ {2,6}(?:-\w, )?(--[a-z-]+)/gm)
            assert.deepStrictEqual(
              optionsIn(text, /^\\fB(?:\\-\w, )?((?:\\-){2}[a-z]+(?:\\-[a-z]+)*)/gm),
              shown,
              file
            )
            const [, section = ""] = tables.split(`\n## ${words.join(" ")}\n`)
            const listed = optionsIn(section.split("\n## ")[0] ?? "", /^\| `(?:-\w, )?(--[a-z-]+)/gm)
            assert.deepStrictEqual([...listed, ...everywhere], shown, file)
            const variables = (from: string) => from.match(/\[PORTMAPPER_\w+\]/g)
            assert.deepStrictEqual(variables(text), variables(stdout), file)
            const completed =
              new RegExp(`^_${words.join("_")}\\(\\)\\n\\{\\n([\\s\\S]*?)^\\}`, "m").exec(script)?.[1] ?? ""
            assert.sameMembers(
              [...optionsIn(completed, /_filtered_flags\+=" (--[a-z-]+)/g)],
              [...shown],
              file
            )
          }),
        { concurrency: 2 }
      )
    })
)

testNeeding("systemd-analyze rates the exposure of the unit at 3.0 or less", ["activation"], async () => {
  const threshold = ["--offline=yes", "--threshold=30", join(deploy, "portmapper.service")]
  const { status, stdout, stderr } = spawnSync("systemd-analyze", ["security", ...threshold], {
    encoding: "utf8"
  })
  assert.strictEqual(status, 0, stdout + stderr)
})

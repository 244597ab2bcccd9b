/** What can be checked of the Debian package without building it; `npm run test:long` installs and upgrades it. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { manualPages } from "../../scripts/package/Manual.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { portmapper } from "../support/command.ts"

const deploy = join(import.meta.dirname, "../../deploy")

it.live("every command has a manual page with the options, variables and texts of its --help", () =>
  Effect.gen(function* () {
    const pages = yield* Effect.promise(() => manualPages("1.2.3", "2026-01-02"))
    const names = pages.map(({ file }) => file.replace(/\.1$/, ""))
    for (const name of ["portmapper", "portmapper-serve", "portmapper-map", "portmapper-cni-install"])
      assert.include(names, name)
    for (const command of ["", "map", "cni install", "serve", "rpc"]) {
      const args = command.split(" ").filter((word) => word !== "")
      const page = pages[names.indexOf(["portmapper", ...args].join("-"))]?.text ?? assert.fail(command)
      const { stdout } = yield* portmapper([...args, "--help"])
      const options = stdout.match(/(?<=^ +(-\w, )?)--[a-z-]+/gm) ?? []
      assert.isAbove(options.length, 3)
      for (const option of options) assert.include(page, option.replaceAll("-", "\\-"), command)
      for (const variable of stdout.match(/\[PORTMAPPER_\w+\]/g) ?? [])
        assert.include(page, variable, command)
    }
  })
)

testNeeding("systemd-analyze rates the exposure of the unit at 3.0 or less", ["activation"], async () => {
  const threshold = ["--offline=yes", "--threshold=30", join(deploy, "portmapper.service")]
  const { status, stdout, stderr } = spawnSync("systemd-analyze", ["security", ...threshold], {
    encoding: "utf8"
  })
  assert.strictEqual(status, 0, stdout + stderr)
})

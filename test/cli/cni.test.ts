import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { portmapper } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"

const front = Path.join(import.meta.dirname, "../../adapters/cni/front.sh")

it.live("cni install links the plugin, replaces an older link, and leaves another program's file alone", () =>
  Effect.gen(function* () {
    const folder = yield* temporaryFolder
    const path = Path.join(folder, "portmapper-cni")
    const installed = { status: 0, stdout: `${path} -> ${front}\n`, stderr: "" }
    assert.deepStrictEqual(yield* portmapper(["cni", "install", folder]), installed)
    assert.strictEqual(Fs.readlinkSync(path), front)
    Fs.rmSync(path)
    Fs.symlinkSync("/nonexistent/older", path)
    assert.deepStrictEqual(yield* portmapper(["cni", "install", folder]), installed)
    Fs.rmSync(path)
    Fs.writeFileSync(path, "another program")
    assert.deepStrictEqual(yield* portmapper(["cni", "install", folder]), {
      status: 1,
      stdout: "",
      stderr: `portmapper: linking portmapper-cni into ${folder}: ${path} is there, and is not a link; remove it first\n`
    })
    assert.strictEqual(Fs.readFileSync(path, "utf8"), "another program")
    assert.deepStrictEqual(Fs.readdirSync(folder), ["portmapper-cni"])
  })
)

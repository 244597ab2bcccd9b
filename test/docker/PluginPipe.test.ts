/**
 * A Windows pipe on a system without any: its path is a file name in the working folder here, so that everything
 * but the pipe itself runs.
 */
import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { pipePath, pipeUrl, serveWindows } from "../../adapters/docker/PluginPipe.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { granting } from "../support/drivers.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"

const served = (name: string, specFolder: string) =>
  Effect.provideService(serveWindows(name, { specFolder }), Driver, granting)

describe("serveWindows", () => {
  it("names the pipe as Windows and the Engine do", () => {
    assert.strictEqual(pipePath("pm"), "\\\\.\\pipe\\pm")
    assert.strictEqual(pipeUrl("pm"), "npipe:////./pipe/pm")
  })

  it.live.skipIf(process.platform === "win32")(
    "serves on the pipe, and describes it in a spec file meanwhile",
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const before = process.cwd()
        process.chdir(yield* temporaryFolder)
        yield* Effect.addFinalizer(() => Effect.sync(() => process.chdir(before)))
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* served("pm", folder)
            assert.strictEqual(
              Fs.readFileSync(`${folder}/pm.spec`, "utf8"),
              "npipe:////./pipe/pm#portmapper\n"
            )
            assert.strictEqual(
              (yield* Effect.promise(() => request(pipePath("pm"), "/Plugin.Activate"))).status,
              200
            )
            const second = yield* Effect.flip(Effect.scoped(served("pm", folder)))
            assert.strictEqual(second.message, "listening on \\\\.\\pipe\\pm failed: address already in use")
            assert.deepStrictEqual(Fs.readdirSync(folder), ["pm.spec"])
          })
        )
        assert.deepStrictEqual(Fs.readdirSync(folder), [])
      })
  )

  it.live("refuses invalid pipe names", () =>
    Effect.gen(function* () {
      for (const name of ["", "a/b", "a\\b", "x".repeat(248)])
        assert.strictEqual(
          (yield* Effect.flip(Effect.scoped(served(name, "/nowhere")))).message,
          `listening on ${pipePath(name)} failed: a pipe's name has 1 to 247 characters and no slash`
        )
    })
  )
})

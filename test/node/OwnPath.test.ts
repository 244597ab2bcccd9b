import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { replaceablePart } from "../../adapters/node/OwnPath.ts"
import { prepareDirectory } from "../../adapters/node/StateDirectory.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { echo } from "../support/drivers.ts"
import { replaceableFolders } from "../support/replaceableFolders.ts"
import { temporaryFolder } from "../support/socket.ts"

const own = process.geteuid?.() ?? 0
const rule = `it must belong to root or to user ${own}, and be writable by no one else or be sticky`

describe("a path", () => {
  it.live(
    "does not change where only root and we may change it, through our own links and missing parts",
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const inside = Path.join(folder, "a")
        Fs.mkdirSync(inside)
        Fs.symlinkSync("a/../a", Path.join(folder, "relative"))
        Fs.symlinkSync(inside, Path.join(folder, "absolute"))
        for (const part of ["", "a", "relative", "absolute/b/c"])
          assert.strictEqual(replaceablePart(Path.join(folder, part)), undefined)
      })
  )

  it.live("is not found through links in a circle", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      Fs.symlinkSync("two", Path.join(folder, "one"))
      Fs.symlinkSync("one", Path.join(folder, "two"))
      assert.match(
        String(replaceablePart(Path.join(folder, "one"))),
        /: must not lead through more than 200 /
      )
    })
  )
})

describe("a socket and a state directory", () => {
  it.live.each(replaceableFolders.filter(({ needsRoot }) => !needsRoot || own === 0))(
    "are refused $title",
    ({ make, named }) =>
      Effect.gen(function* () {
        const base = yield* temporaryFolder
        const folder = make(base)
        const part = Path.join(base, named)
        const { uid, mode } = Fs.lstatSync(part)
        const detail = `another user could replace what is in ${part} (owner ${uid}, mode ${(mode & 0o7777).toString(8)}): ${rule}`
        const path = Path.join(folder, "p.sock")
        const socket = Effect.provideService(serveUnix(path), Driver, echo)
        assert.strictEqual((yield* Effect.flip(Effect.scoped(socket))).message, `${path}: ${detail}`)
        assert.strictEqual(
          (yield* Effect.flip(prepareDirectory(Path.join(folder, "state")))).message,
          `preparing the state directory failed: ${detail}`
        )
        assert.deepStrictEqual(Fs.existsSync(folder) ? Fs.readdirSync(folder) : [], [])
      })
  )

  it.live("may lie in a sticky folder that all may write to", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      Fs.chmodSync(folder, 0o1777)
      yield* Effect.provideService(serveUnix(Path.join(folder, "p.sock")), Driver, echo)
      yield* prepareDirectory(Path.join(folder, "state"))
    })
  )
})

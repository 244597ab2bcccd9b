import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { HeldListeners, holdListeners } from "../../adapters/upgrade/HeldListeners.ts"
import { temporaryFolder } from "../support/folders.ts"
import { openedFile } from "./peer.ts"

const without = <A extends { readonly fd: number }>(items: ReadonlyArray<A>) =>
  items.map(({ fd: _, ...item }) => item)

describe("the listeners that a process keeps", () => {
  it.live("are kept by copies of their descriptors, one for each place, and closed with the scope", () =>
    Effect.gen(function* () {
      const { fd, copies } = yield* openedFile(Path.join(yield* temporaryFolder, "x"))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const held = yield* holdListeners(undefined)
          for (const port of [1, 2]) assert.isTrue(held.keep("tcp a:0", fd, { port }))
          held.describe("tcp a:0", { spec: { path: "p", content: "c" } })
          held.describe("tcp b:0", { port: 3 })
          const spec = { path: "p", content: "c" }
          assert.deepStrictEqual(without(held.listeners()), [{ place: "tcp a:0", port: 2, spec }])
          assert.strictEqual(copies(), 1)
          const adopted = held.adopt("tcp a:0")
          assert.strictEqual(copies(), 2)
          Fs.closeSync(adopted?.fd ?? -1)
          assert.isUndefined(held.adopt("tcp b:0"))
          assert.isFalse(held.keep("tcp b:0", 100_000, {}))
          assert.isTrue(held.keepConnection("tcp a:0", { fd, session: "s" }))
          assert.isTrue(held.keepConnection("tcp b:0", { fd }))
          assert.lengthOf(held.takeConnections("tcp b:0"), 1)
          assert.deepStrictEqual(held.takeConnections("tcp b:0"), [])
          assert.deepStrictEqual(without(held.connections()), [{ place: "tcp a:0", session: "s" }])
          // The one that was taken belongs to whoever took it.
          assert.strictEqual(copies(), 3)
        })
      )
      assert.strictEqual(copies(), 1)
    })
  )

  it.live("are closed with their files and connections where the successor does not listen there", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const [own, replaced, spec] = ["own", "replaced", "spec"].map((name) => Path.join(folder, name))
      for (const path of [own, replaced, spec]) Fs.writeFileSync(path ?? "", "ours")
      const { ino } = Fs.statSync(own ?? "")
      const open = () => Fs.openSync("/dev/null", "r")
      const held = new HeldListeners(
        [
          { place: `unix ${own}`, fd: open(), inode: ino, spec: { path: spec ?? "", content: "ours" } },
          { place: `unix ${replaced}`, fd: open(), inode: ino },
          { place: "tcp a:0", fd: open() }
        ],
        [
          { place: `unix ${own}`, fd: open() },
          { place: "tcp a:0", fd: open() }
        ]
      )
      const before = Fs.readdirSync("/proc/self/fd").length
      Fs.closeSync(held.adopt("tcp a:0")?.fd ?? -1)
      assert.deepStrictEqual(held.closeUnadopted(), [`unix ${own}`, `unix ${replaced}`])
      assert.deepStrictEqual(Fs.readdirSync(folder), ["replaced"])
      assert.deepStrictEqual(
        [held.places(), without(held.connections())],
        [["tcp a:0"], [{ place: "tcp a:0" }]]
      )
      assert.strictEqual(Fs.readdirSync("/proc/self/fd").length, before - 3)
      assert.deepStrictEqual(held.closeUnadopted(), [])
      held.close()
    })
  )

  it.effect("accept once they may, and leave everything open only while a successor takes over", () =>
    Effect.gen(function* () {
      const held = yield* holdListeners(undefined)
      const states = () => [held.accepts(), held.isLeaving()]
      const before = states()
      yield* held.letAccept
      held.leave()
      const leaving = states()
      held.stay()
      assert.deepStrictEqual(
        [before, leaving, states()],
        [
          [false, false],
          [true, true],
          [true, false]
        ]
      )
    })
  )
})

import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { listenerOf, lockerOf, processText } from "../../adapters/cli/holders.ts"
import { lockState } from "../../adapters/node/StateLock.ts"
import { temporaryFolder } from "../support/folders.ts"

const listening = (path: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const server = Net.createServer().listen(path)
      await once(server, "listening")
      return server
    }),
    (server) => Effect.sync(() => void server.close())
  )

describe("the process that listens on a Unix socket", () => {
  it.live("is found by the socket's path, also where it was renamed after it was bound", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const [own, renamed, bound] = ["own.sock", "p.sock", ".12.sock"].map((name) =>
        Path.join(folder, name)
      ) as [string, string, string]
      yield* listening(own)
      assert.strictEqual(listenerOf(own), process.pid)
      assert.isUndefined(listenerOf(renamed))
      yield* listening(bound)
      yield* listening(Path.join(yield* temporaryFolder, ".13.sock"))
      Fs.renameSync(bound, renamed)
      assert.deepStrictEqual([own, renamed].map(listenerOf), [process.pid, process.pid])
    })
  )

  it.live("is unknown where several sockets were bound beside it", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      for (const name of [".1.sock", ".2.sock"]) yield* listening(Path.join(folder, name))
      assert.isUndefined(listenerOf(Path.join(folder, "p.sock")))
    })
  )

  it.live("is none where only a connection is left of it", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const server = yield* listening(path)
      const accepted = once(server, "connection")
      const client = Net.connect(path)
      yield* Effect.promise(() => accepted)
      assert.strictEqual(listenerOf(path), process.pid)
      server.close()
      assert.isUndefined(listenerOf(path))
      client.destroy()
    })
  )
})

describe("the process that has a lock", () => {
  it.live("is found by any of the files that it may have locked", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const files = () => [
        Path.join(folder, "none"),
        ...Fs.readdirSync(folder).map((name) => Path.join(folder, name))
      ]
      assert.isUndefined(lockerOf(files()))
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* lockState(folder)
          assert.strictEqual(lockerOf(files()), process.pid)
          assert.isUndefined(lockerOf([folder]))
        })
      )
      assert.isUndefined(lockerOf(files()))
    })
  )
})

describe("a process", () => {
  it.live("is named by its command line, cut and without control characters", () =>
    Effect.gen(function* () {
      const words = ["-e", "setInterval(() => {}, 1000)", "\u001b[2J", "x".repeat(60)]
      const child = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const started = spawn(process.execPath, words, { stdio: "ignore" })
          await once(started, "spawn")
          return started
        }),
        (started) => Effect.sync(() => void started.kill("SIGKILL"))
      )
      const command = `node ${words.join(" ").replace("\u001b", "\\x1b")}`
      assert.strictEqual(processText(child.pid), `process ${child.pid} (${command.slice(0, 60)}…)`)
    })
  )

  it("is another process where its id is unknown, or is not of this container", () => {
    assert.deepStrictEqual([undefined, 0, -1, Number.NaN].map(processText), Array(4).fill("another process"))
    // No process has this id.
    assert.strictEqual(processText(2 ** 30), `process ${2 ** 30}`)
  })
})

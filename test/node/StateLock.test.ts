import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { lockState } from "../../adapters/node/StateLock.ts"
import { atOneTimeOfDay } from "../support/clock.ts"
import { temporaryFolder } from "../support/folders.ts"

const script = Path.join(import.meta.dirname, "../support/lockHolder.ts")

describe("lockState", () => {
  it.live("refuses a second process, naming the first", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const first = yield* holder(directory)
      assert.strictEqual(yield* first.line, "locked")
      const error = yield* Effect.flip(lockState(directory))
      assert.strictEqual(error.message, `${directory} is in use by process ${first.pid}`)
      const second = yield* holder(directory)
      assert.strictEqual(yield* second.line, `${directory} is in use by process ${first.pid}`)
    })
  )

  it.live("is free as soon as its process ends, by releasing it or by a kill", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      for (const end of ["letGo", "kill"] as const) {
        const first = yield* holder(directory)
        assert.strictEqual(yield* first.line, "locked")
        yield* first[end]
        yield* Effect.scoped(lockState(directory))
      }
      assert.deepStrictEqual(Fs.readdirSync(directory), ["lock"])
    })
  )

  it.live("excludes others in the same process, until its scope closes", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const error = yield* Effect.scoped(
        Effect.andThen(lockState(directory), Effect.flip(Effect.scoped(lockState(directory))))
      )
      assert.strictEqual(error.message, `${directory} is in use by process ${process.pid}`)
      yield* lockState(directory)
    })
  )

  it.live("names no process rather than a dead one or another one with its number", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      yield* lockState(directory)
      for (const text of ["", "{", '{"pid":1,"started":"1"}', '{"pid":4194305,"started":"1"}']) {
        Fs.writeFileSync(Path.join(directory, "holder"), text)
        const error = yield* Effect.flip(Effect.scoped(lockState(directory)))
        assert.strictEqual(error.message, `${directory} is in use by another process`)
      }
    })
  )

  it.live("waits for the lock as long as its timeout says, whatever the time of day", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const first = yield* holder(directory)
      assert.strictEqual(yield* first.line, "locked")
      const began = performance.now()
      yield* atOneTimeOfDay(Effect.flip(Effect.scoped(lockState(directory, { wait: "100 millis" }))))
      assert.isAtLeast(performance.now() - began, 100)
      const waiting = yield* Effect.forkChild(Effect.scoped(lockState(directory, { wait: "10 seconds" })))
      yield* Effect.sleep("50 millis")
      yield* first.kill
      yield* Fiber.join(waiting)
    })
  )

  it.live("stops waiting when it is interrupted, and leaves nothing held", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* lockState(directory)
          const waiting = yield* Effect.forkChild(Effect.scoped(lockState(directory, { wait: "10 seconds" })))
          yield* Effect.sleep("50 millis")
          yield* Fiber.interrupt(waiting)
        })
      )
      yield* lockState(directory)
    })
  )

  it.live("lets many processes have it, one at a time", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const holders = yield* Effect.forEach([1, 2, 3, 4, 5], () => holder(directory, "wait"))
      const lines = yield* Effect.forEach(
        holders,
        (each) =>
          Effect.gen(function* () {
            const line = yield* each.line
            yield* Effect.flip(lockState(directory))
            yield* each.letGo
            return line
          }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(lines, ["locked", "locked", "locked", "locked", "locked"])
    })
  )
})

const holder = (directory: string, wait?: "wait") =>
  Effect.gen(function* () {
    const child: ChildProcess = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [script, directory, ...(wait === undefined ? [] : [wait])], {
          stdio: ["pipe", "pipe", "inherit"]
        })
      ),
      (running) => Effect.sync(() => running.kill("SIGKILL"))
    )
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
    const lines = createInterface({ input: child.stdout ?? process.stdin })[Symbol.asyncIterator]()
    return {
      pid: child.pid,
      line: Effect.promise(async () => String((await lines.next()).value)),
      letGo: Effect.promise(() => {
        child.stdin?.end()
        return ended
      }),
      kill: Effect.promise(() => {
        child.kill("SIGKILL")
        return ended
      })
    }
  })

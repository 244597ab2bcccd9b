import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { echo } from "../support/drivers.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"
import { until } from "../support/until.ts"

const ask = (...args: Parameters<typeof request>) => Effect.promise(() => request(...args))

describe("the plugin's socket", () => {
  it.live("is created with its mode in a folder made for it, and is removed at the end", () =>
    Effect.gen(function* () {
      const base = yield* temporaryFolder
      const path = Path.join(base, "plugins", "p.sock")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Effect.provideService(serveUnix(path, { groupId: process.getgid?.() }), Driver, echo)
          assert.strictEqual(Fs.statSync(path).mode & 0o777, 0o660)
          assert.strictEqual(Fs.statSync(Path.dirname(path)).mode & 0o777, 0o755)
          assert.deepStrictEqual(Fs.readdirSync(Path.dirname(path)), ["p.sock"])
        })
      )
      assert.deepStrictEqual(Fs.readdirSync(Path.dirname(path)), [])
    })
  )

  it.live("replaces a stale socket, and refuses a served one and a file that is not a socket", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const start = Effect.provideService(serveUnix(path), Driver, echo)
      const abandoned = Net.createServer()
      yield* Effect.callback<void>(
        (resume) => void abandoned.listen(`${path}.other`, () => resume(Effect.void))
      )
      Fs.renameSync(`${path}.other`, path)
      abandoned.close()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* start
          assert.strictEqual((yield* ask(path, "/Plugin.Activate")).status, 200)
          const error = yield* Effect.flip(Effect.scoped(start))
          assert.strictEqual(error.message, `${path}: another process is serving it`)
          assert.strictEqual((yield* ask(path, "/Plugin.Activate")).status, 200)
        })
      )
      Fs.writeFileSync(path, "")
      assert.strictEqual(
        (yield* Effect.flip(Effect.scoped(start))).message,
        `${path}: a file that is no socket is in the way`
      )
    })
  )

  it.live("does not remove the socket of a successor", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Effect.provideService(serveUnix(path), Driver, echo)
          Fs.rmSync(path)
          Fs.writeFileSync(path, "the successor's")
        })
      )
      assert.strictEqual(Fs.readFileSync(path, "utf8"), "the successor's")
    })
  )

  it.live("finishes the requests in flight when it stops, and accepts no new ones", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const proceed = yield* Deferred.make<void>()
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const driver = {
        ...echo,
        unmapPorts: () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(proceed))
      }
      const stop = yield* Deferred.make<void>()
      const server = yield* Effect.forkChild(
        Effect.scoped(
          Effect.andThen(Effect.provideService(serveUnix(path), Driver, driver), Deferred.await(stop))
        ),
        { startImmediately: true }
      )
      yield* until(Effect.sync(() => Fs.existsSync(path)))
      const answer = yield* Effect.forkChild(ask(path, "/PortMapper.UnmapPorts", "{}"))
      yield* Deferred.await(begun)
      yield* Deferred.succeed(stop, undefined)
      yield* until(Effect.sync(() => !Fs.existsSync(path)))
      yield* Deferred.succeed(proceed, undefined)
      assert.strictEqual((yield* Fiber.join(answer)).status, 200)
      yield* Fiber.join(server)
    })
  )
})

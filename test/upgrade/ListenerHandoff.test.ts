/** What a plugin's clients notice between two servers on a socket that both use in turn. */
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { type HeldListeners, holdListeners } from "../../adapters/upgrade/HeldListeners.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { granting } from "../support/drivers.ts"
import { temporaryFolder } from "../support/folders.ts"
import { raw, request } from "../support/http.ts"
import { turns } from "../support/until.ts"
import http from "../vectors/http.json" with { type: "json" }

const mapBody = http[2]?.body ?? ""
/** With the header that many clients send although they keep the connection anyway. */
const bytes = `POST /PortMapper.MapPorts HTTP/1.1\r\nHost: plugin.moby.localhost\r\nConnection: keep-alive\r\nContent-Length: ${Buffer.byteLength(mapBody)}\r\n\r\n${mapBody}`

/** Serves until the returned effect ends it. */
const serving = Effect.fnUntraced(function* (
  path: string,
  handoff: HeldListeners,
  driver: Driver["Service"] = granting
) {
  const scope = yield* Scope.make()
  yield* serveUnix(path, { handoff }).pipe(
    Effect.provideService(Driver, driver),
    Effect.provideService(Scope.Scope, scope)
  )
  return Scope.close(scope, Exit.void)
})

/** A connection kept alive as the Engine's client does, and the status of its answers. */
const connection = (path: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Net.Socket>((resume) => {
        const socket = Net.connect(path, () => resume(Effect.succeed(socket)))
      }),
      (socket) => Effect.sync(() => socket.destroy())
    ),
    (socket) => {
      let got = ""
      let isOver = false
      socket.setEncoding("utf8").on("data", (text) => {
        got += text
      })
      for (const end of ["end", "error", "close"]) socket.on(end, () => (isOver = true))
      const statuses = () => [...got.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status))
      return {
        ask: () => void socket.write(bytes),
        isOver: () => isOver,
        answers: (count: number) =>
          Effect.promise(async () => {
            while (statuses().length < count && !isOver)
              await new Promise((resolve) => setTimeout(resolve, 5))
            return statuses()
          })
      }
    }
  )

describe("a socket that is kept for a successor", () => {
  it.live("refuses no client, finishes requests in flight, and closes no idle connection", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const handoff = yield* holdListeners(undefined)
      yield* handoff.letAccept
      const asked = yield* Deferred.make<void>()
      const granted = yield* Deferred.make<void>()
      const slow = Driver.of({
        ...granting,
        mapPorts: (group) =>
          Deferred.succeed(asked, undefined).pipe(
            Effect.andThen(Deferred.await(granted)),
            Effect.andThen(granting.mapPorts(group))
          )
      })
      const end = yield* serving(path, handoff, slow)
      const { ino } = Fs.statSync(path)
      const idle = yield* connection(path)
      const busy = yield* connection(path)
      busy.ask()
      yield* Deferred.await(asked)
      // The first server has read this request, so it answers it.
      busy.ask()
      yield* turns()

      handoff.leave()
      const ending = yield* Effect.forkChild(end, { startImmediately: true })
      // No server reads this request before there is a successor.
      idle.ask()
      const late = yield* Effect.forkChild(
        Effect.promise(() => request(path, "/Plugin.Activate")),
        { startImmediately: true }
      )
      yield* Deferred.succeed(granted, undefined)
      yield* Fiber.join(ending)
      assert.deepStrictEqual(yield* busy.answers(2), [200, 200])
      assert.deepStrictEqual([idle.isOver(), busy.isOver()], [false, false])
      busy.ask()

      handoff.stay()
      const endOfSecond = yield* serving(path, handoff)
      assert.deepStrictEqual(yield* idle.answers(1), [200])
      assert.deepStrictEqual(yield* busy.answers(3), [200, 200, 200])
      assert.strictEqual((yield* Fiber.join(late)).status, 200)
      assert.strictEqual(Fs.statSync(path).ino, ino)
      assert.deepStrictEqual(handoff.connections(), [])

      yield* Effect.sync(handoff.close)
      yield* endOfSecond
      assert.isFalse(Fs.existsSync(path))
    })
  )

  it.live("accepts no connection before its last holder lets go", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const first = yield* holdListeners(undefined)
      yield* first.letAccept
      const end = yield* serving(path, first)
      first.leave()
      yield* end
      // As the successor receives them, with equal numbers: both are one process here.
      const listeners = first.listeners().map((kept) => ({ ...kept, ...first.adopt(kept.place) }))
      const second = yield* holdListeners({ listeners, connections: [] })
      const endOfSecond = yield* serving(path, second)
      const early = yield* connection(path)
      early.ask()
      yield* turns()
      assert.deepStrictEqual(yield* early.answers(0), [])
      yield* second.letAccept
      assert.deepStrictEqual(yield* early.answers(1), [200])
      yield* endOfSecond
    })
  )

  it.live("is bound anew where its file belongs to another socket by now", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const handoff = yield* holdListeners(undefined)
      yield* handoff.letAccept
      const end = yield* serving(path, handoff)
      handoff.leave()
      yield* end
      handoff.stay()
      Fs.rmSync(path)
      const endOfSecond = yield* serving(path, handoff)
      assert.match(
        yield* Effect.promise(() =>
          raw(path, `${bytes.replace("\r\n", "\r\nConnection: close\r\n")}`, 10_000)
        ),
        /^HTTP\/1\.1 200 /
      )
      yield* endOfSecond
    })
  )
})

import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit } from "effect"
import { maxBodyBytes } from "../../adapters/docker/PluginServer.ts"
import type { RouteOptions } from "../../adapters/docker/Routes.ts"
import { echo } from "../support/drivers.ts"
import { request } from "../support/http.ts"
import { socketFor } from "../support/socket.ts"
import { turns } from "../support/until.ts"
import http from "../vectors/http.json" with { type: "json" }

const ask = (...args: Parameters<typeof request>) => Effect.promise(() => request(...args))

const mapBody = http[2]?.body ?? ""

describe("a call", () => {
  it.live("is interrupted when its client disconnects before the answer", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const undone = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const path = yield* socketFor({
        ...echo,
        mapPorts: () =>
          Effect.addFinalizer((exit) => Deferred.succeed(undone, exit)).pipe(
            Effect.andThen(Deferred.succeed(begun, undefined)),
            Effect.andThen(Effect.never)
          )
      })
      const socket = Net.connect(path)
      // In chunks, which node:http reads; see `WholeRequests` for the others.
      socket.write("POST /PortMapper.MapPorts HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
      socket.write(`${mapBody.length.toString(16)}\r\n${mapBody}\r\n0\r\n\r\n`)
      yield* Deferred.await(begun)
      socket.destroy()
      assert.isTrue(Exit.hasInterrupts(yield* Deferred.await(undone)))
    })
  )

  it.live("is rolled back when the client disconnects while the answer is computed", () =>
    Effect.gen(function* () {
      const undone = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const begun = yield* Deferred.make<void>()
      const socketGone = yield* Deferred.make<void>()
      const path = yield* socketFor({
        ...echo,
        mapPorts: (group) =>
          Effect.addFinalizer((exit) => Deferred.succeed(undone, exit)).pipe(
            Effect.andThen(Deferred.succeed(begun, undefined)),
            Effect.andThen(Effect.uninterruptible(Deferred.await(socketGone))),
            Effect.andThen(echo.mapPorts(group))
          )
      })
      const socket = Net.connect(path)
      socket.write(
        `POST /PortMapper.MapPorts HTTP/1.1\r\nContent-Length: ${mapBody.length}\r\n\r\n${mapBody}`
      )
      yield* Deferred.await(begun)
      socket.destroy()
      yield* turns()
      yield* Deferred.succeed(socketGone, undefined)
      assert.isTrue(Exit.isFailure(yield* Deferred.await(undone)))
    })
  )

  it.live(
    "of a further POST is answered by its handler, and rolled back when the client has disconnected",
    () =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const exits: Array<string> = []
        const undone = yield* Deferred.make<void>()
        const handlers: RouteOptions["handlers"] = {
          "/Tea.Brew": ({ header, body }) =>
            Effect.gen(function* () {
              yield* Effect.addFinalizer(({ _tag }) => {
                exits.push(_tag)
                return body === "wait" ? Deferred.succeed(undone, undefined) : Effect.void
              })
              if (body !== "wait")
                return { status: 418, contentType: "text/tea", body: `${header("tea-kind")}: ${body}` }
              yield* Deferred.succeed(begun, undefined)
              return yield* Effect.never
            })
        }
        const path = yield* socketFor(echo, { handlers })
        assert.deepStrictEqual(yield* ask(path, "/Tea.Brew", "steep", { headers: { "Tea-Kind": "green" } }), {
          status: 418,
          contentType: "text/tea",
          body: "green: steep"
        })
        assert.deepStrictEqual(
          [
            (yield* ask(path, "/Tea.Brew", "", { method: "GET" })).status,
            (yield* ask(path, "/Tea.Brew", "x".repeat(maxBodyBytes + 1))).status
          ],
          [405, 413]
        )
        const socket = Net.connect(path)
        socket.write("POST /Tea.Brew HTTP/1.1\r\nContent-Length: 4\r\n\r\nwait")
        yield* Deferred.await(begun)
        socket.destroy()
        yield* Deferred.await(undone)
        assert.deepStrictEqual(exits, ["Success", "Failure"])
      })
  )

  it.live("closes its scope with success once the client has it", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const path = yield* socketFor({
        ...echo,
        mapPorts: (group) =>
          Effect.andThen(
            Effect.addFinalizer((exit) => Deferred.succeed(closed, exit)),
            echo.mapPorts(group)
          )
      })
      yield* ask(path, "/PortMapper.MapPorts", mapBody)
      assert.isTrue(Exit.isSuccess(yield* Deferred.await(closed)))
    })
  )
})

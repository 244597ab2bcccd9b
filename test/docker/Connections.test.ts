import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue } from "effect"
import { echo } from "../support/drivers.ts"
import { request } from "../support/http.ts"
import { mapRequest } from "../support/requests.ts"
import { socketFor } from "../support/socket.ts"
import { askUnread, manyListed } from "../support/unread.ts"

const ask = (...args: Parameters<typeof request>) => Effect.promise(() => request(...args))
const mapBody = (port: number) => JSON.stringify(mapRequest(port))

describe("a connection of a client that does not read", () => {
  it.live(
    "has one request computed at a time, and is closed once too many wait behind it; others are served",
    () =>
      Effect.gen(function* () {
        const asked = yield* Queue.unbounded<void>()
        let count = 0
        const path = yield* socketFor({
          ...echo,
          listPorts: Effect.suspend(() => {
            count++
            Queue.offerUnsafe(asked, undefined)
            return Effect.succeed(manyListed)
          })
        })
        const patient = askUnread({ path }, 10)
        yield* Queue.take(asked)
        const flooding = askUnread({ path }, 700)
        // The client has not read so far, so it notices the end only when it does.
        flooding.socket.resume()
        yield* Effect.promise(() => flooding.closed)
        for (let port = 1; port <= 50; port++)
          assert.strictEqual((yield* ask(path, "/PortMapper.MapPorts", mapBody(port))).status, 200)
        assert.isAtMost(count, 2)
        const one = (yield* ask(path, "/PortMapper.ListPorts", "{}")).body
        let bytes = 0
        const read = new Promise<void>((resolve) =>
          patient.socket.on("data", (chunk) => {
            bytes += chunk.length
            if (bytes > 10 * one.length) resolve()
          })
        )
        patient.socket.resume()
        yield* Effect.promise(() => read)
        assert.isAtLeast(count, 11)
        patient.socket.destroy()
      })
  )
})

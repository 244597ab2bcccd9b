import { PassThrough, Writable } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { echo, grant } from "../support/drivers.ts"
import { mapRequest } from "../support/requests.ts"
import { mapped, openSession, rpc, withDriver } from "../support/session.ts"
import { turns } from "../support/until.ts"

/** An output that blocks until the test releases it. */
const stuckOutput = () => {
  const taken: Array<string> = []
  let release: (() => void) | undefined
  let open = false
  const output = new Writable({
    decodeStrings: false,
    write: (chunk, _, done) => {
      const take = () => {
        taken.push(chunk)
        done()
      }
      if (open) take()
      else release = take
    }
  })
  return {
    output,
    taken,
    open: () => {
      open = true
      release?.()
    }
  }
}

describe("an answer", () => {
  const watched = () => {
    const events: Array<string> = []
    const driver = {
      ...echo,
      mapPorts: (group: Parameters<typeof grant>[0]) =>
        Effect.as(
          Effect.addFinalizer((exit) =>
            Effect.sync(() =>
              events.push(`${grant(group)[0]?.port} ${Exit.isSuccess(exit) ? "delivered" : "undone"}`)
            )
          ),
          grant(group)
        )
    }
    return { events, driver }
  }

  it.live("is delivered once the system has accepted its line, not before", () =>
    Effect.suspend(() => {
      const { events, driver } = watched()
      const { output, open, taken } = stuckOutput()
      const input = new PassThrough()
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(serve({ input, output }))
        input.end([1, 2, 3].map((port) => JSON.stringify(rpc(port, "MapPorts", mapRequest(port)))).join("\n"))
        yield* turns(100)
        assert.deepStrictEqual(events, [])
        open()
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(events, ["1 delivered", "2 delivered", "3 delivered"])
        assert.deepStrictEqual(
          taken.join("").split("\n"),
          [mapped(1, 1), mapped(2, 2), mapped(3, 3)].map((value) => JSON.stringify(value)).concat("")
        )
      }).pipe(withDriver(driver))
    })
  )

  it.live("to a notification is delivered at once", () =>
    Effect.suspend(() => {
      const { events, driver } = watched()
      return Effect.gen(function* () {
        const session = yield* openSession
        yield* session.send(rpc(undefined, "MapPorts", mapRequest(1)))
        yield* session.end
        assert.deepStrictEqual(events, ["1 delivered"])
      }).pipe(withDriver(driver))
    })
  )

  it.live("without a reader is rolled back, and ends the session", () =>
    Effect.suspend(() => {
      const { events, driver } = watched()
      const { output } = stuckOutput()
      const input = new PassThrough()
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(serve({ input, output }))
        input.write(
          [1, 2].map((port) => `${JSON.stringify(rpc(port, "MapPorts", mapRequest(port)))}\n`).join("")
        )
        yield* turns(100)
        output.destroy(new Error("write EPIPE"))
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.strictEqual(error.message, "writing answers failed: write EPIPE")
        assert.deepStrictEqual(events, ["2 undone", "1 undone"])
        assert.strictEqual(input.listenerCount("readable"), 0)
      }).pipe(withDriver(driver))
    })
  )

  it.live("being computed when the reader goes is abandoned", () =>
    Effect.suspend(() => {
      const { output } = stuckOutput()
      const input = new PassThrough()
      return Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const undone = yield* Deferred.make<boolean>()
        const fiber = yield* Effect.forkChild(
          serve({ input, output }).pipe(
            withDriver({
              ...echo,
              mapPorts: () =>
                Effect.addFinalizer((exit) => Deferred.succeed(undone, Exit.isFailure(exit))).pipe(
                  Effect.andThen(Deferred.succeed(begun, undefined)),
                  Effect.andThen(Effect.never)
                )
            })
          )
        )
        input.write(`${JSON.stringify(rpc(1, "MapPorts", mapRequest(1)))}\n`)
        yield* Deferred.await(begun)
        output.destroy()
        assert.isTrue(yield* Deferred.await(undone))
        assert.strictEqual(
          (yield* Effect.flip(Fiber.join(fiber))).message,
          "writing answers failed: the stream was closed"
        )
      })
    })
  )

  it.live("that is not read stops the reading of requests; nothing is lost once it is read", () =>
    Effect.suspend(() => {
      let calls = 0
      const { output, open, taken } = stuckOutput()
      const input = new PassThrough()
      const driver = { ...echo, activated: Effect.sync(() => void calls++) }
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(serve({ input, output }))
        const total = 50_000
        let sent = 0
        const feed = () => {
          while (sent < total && input.write(`${JSON.stringify(rpc(sent, "Plugin.Activate"))}\n`)) sent++
          if (sent < total) sent++
          else input.end()
        }
        input.on("drain", feed)
        feed()
        let before = -1
        while (before !== calls) {
          before = calls
          yield* Effect.sleep(100)
        }
        assert.isBelow(calls, 8_000)
        open()
        yield* Fiber.join(fiber)
        const ids = taken
          .join("")
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line).id)
        assert.deepStrictEqual(
          ids,
          Array.from({ length: total }, (_, id) => id)
        )
        assert.isBelow(taken.length, 600)
      }).pipe(withDriver(driver))
    })
  )
})

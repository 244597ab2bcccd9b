import { PassThrough } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Queue } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { collectGarbage, malformed, malformedCount, malformedTimeoutMillis } from "../support/abuse.ts"
import { echo } from "../support/drivers.ts"
import { openSession, rpc } from "../support/session.ts"
import { manyListed } from "../support/unread.ts"

/** One line that is not a valid message or whose params are invalid. */
const malformedLine = (body: Buffer, index: number): Buffer => {
  const line = Buffer.from(body.map((byte) => (byte === 0x0a || byte === 0x0d ? 0x20 : byte)))
  if (index % 3 > 0) return Buffer.concat([Buffer.from("!"), line])
  return Buffer.concat([
    Buffer.from('{"jsonrpc":"2.0","id":7,"method":"MapPorts","params":['),
    line,
    Buffer.from("]}")
  ])
}

describe("a session", () => {
  it.live(
    `answers ${malformedCount} malformed lines, keeps no memory of them, and goes on`,
    () =>
      Effect.gen(function* () {
        const session = yield* openSession
        const bodies = malformed()
        let refused = 0
        const half = Effect.gen(function* () {
          const reading = yield* Effect.forkChild(
            Effect.gen(function* () {
              for (let count = 0; count < malformedCount / 2; count++) {
                const { error } = yield* session.next
                assert.include([-32700, -32602], error.code)
                refused++
              }
            })
          )
          for (let index = 0; index < malformedCount / 2; index++) {
            const room = session.input.write(
              Buffer.concat([malformedLine(bodies(index), index), Buffer.from("\n")])
            )
            if (!room)
              yield* Effect.promise(() => new Promise((resolve) => session.input.once("drain", resolve)))
          }
          yield* Fiber.join(reading)
        })
        yield* half
        const before = collectGarbage()
        yield* half
        assert.isBelow(collectGarbage() - before, 8 * 1024 * 1024)
        assert.strictEqual(refused, malformedCount)
        yield* session.send(rpc(1, "Plugin.Activate"))
        assert.deepStrictEqual((yield* session.next).result, { Implements: ["PortMapper"] })
        yield* session.end
      }).pipe(Effect.provideService(Driver, echo)),
    malformedTimeoutMillis
  )

  it.live("keeps nothing of a line that never ends", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      const part = Buffer.alloc(1024 * 1024, 0x78)
      session.input.write(part)
      session.input.write(part)
      assert.strictEqual((yield* session.next).error.code, -32600)
      const before = collectGarbage()
      for (let count = 0; count < 200; count++) {
        if (!session.input.write(part)) {
          yield* Effect.promise(() => new Promise((resolve) => session.input.once("drain", resolve)))
        }
      }
      assert.isBelow(collectGarbage() - before, 8 * 1024 * 1024)
      yield* session.send("", rpc(1, "Plugin.Activate"))
      assert.deepStrictEqual((yield* session.next).result, { Implements: ["PortMapper"] })
      yield* session.end
    }).pipe(Effect.provideService(Driver, echo))
  )

  it.live("computes a bounded number of answers for a client that does not read", () =>
    Effect.gen(function* () {
      let count = 0
      const asked = yield* Queue.unbounded<void>()
      const listPorts = Effect.sync(() => {
        count++
        Queue.offerUnsafe(asked, undefined)
        return manyListed
      })
      const input = new PassThrough()
      const output = new PassThrough()
      const session = serve({ input, output }).pipe(Effect.provideService(Driver, { ...echo, listPorts }))
      yield* Effect.forkScoped(session, { startImmediately: true })
      for (let id = 0; id < 700; id++) input.write(`${JSON.stringify(rpc(id, "ListPorts", {}))}\n`)
      yield* Queue.take(asked)
      // By then the session has done all that it can.
      for (let turn = 0; turn < 100; turn++) yield* Effect.promise(() => new Promise(setImmediate))
      assert.isAtMost(count, 3)
      let lines = 0
      yield* Effect.promise(
        () =>
          new Promise<void>((resolve) =>
            output.on("data", (chunk: Buffer) => {
              for (const byte of chunk) if (byte === 0x0a) lines++
              if (lines === 20) resolve()
            })
          )
      )
      assert.isAtLeast(count, 20)
    })
  )
})

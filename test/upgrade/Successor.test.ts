import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { offerHandover } from "../../adapters/upgrade/Predecessor.ts"
import { refuseAmidHandover, takeOver } from "../../adapters/upgrade/Successor.ts"
import { handoverPath, hello, listeningAt, nothing } from "./peer.ts"

describe("a process that takes over", () => {
  it.live("finds no predecessor without a socket, or without a listener on it", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      assert.isUndefined(yield* takeOver(path))
      const killed = yield* listeningAt(path)
      yield* killed.kill
      yield* killed.end
      assert.isTrue(Fs.existsSync(path))
      assert.isUndefined(yield* takeOver(path))
    })
  )

  it.live("receives the reason for a refusal, from any version", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const other = yield* listeningAt(path)
      const taking = yield* Effect.forkChild(Effect.result(takeOver(path)))
      assert.strictEqual(yield* other.hears, "connected")
      assert.strictEqual(yield* other.hears, `0 ${hello}`)
      yield* other.send('{"_tag":"Refused","reason":"process 7 hands over by version 2","since":2}')
      const taken = yield* Fiber.join(taking)
      assert.strictEqual(
        Result.isFailure(taken) ? taken.failure.message : "",
        "process 7 hands over by version 2"
      )
    })
  )

  const untilHanded = ['{"_tag":"Accepted"}', '{"_tag":"Handed"}']

  /** A predecessor that handed over everything, and sent this after it. */
  const handedOver = Effect.fnUntraced(function* (path: string, ...more: ReadonlyArray<string>) {
    const other = yield* listeningAt(path)
    const taking = yield* Effect.forkChild(takeOver(path))
    for (const message of [...untilHanded, ...more]) yield* other.send(message)
    return { other, predecessor: (yield* Fiber.join(taking)) ?? assert.fail("nothing was taken over") }
  })

  for (const said of [[], untilHanded.slice(0, 1)])
    it.live(`starts without it where the predecessor dies after ${said.length} messages`, () =>
      Effect.gen(function* () {
        const path = yield* handoverPath
        const other = yield* listeningAt(path)
        const taking = yield* Effect.forkChild(takeOver(path))
        assert.strictEqual(yield* other.hears, "connected")
        assert.strictEqual(yield* other.hears, `0 ${hello}`)
        for (const message of said) yield* other.send(message)
        yield* other.kill
        assert.isUndefined(yield* Fiber.join(taking))
      })
    )

  it.live("continues alone where the predecessor dies once everything was handed over", () =>
    Effect.gen(function* () {
      const { other, predecessor } = yield* handedOver(yield* handoverPath)
      assert.deepStrictEqual(predecessor.state, nothing)
      yield* other.kill
      yield* predecessor.confirm
    })
  )

  it.live("continues alone where the predecessor hangs after it could let go, and kills it first", () =>
    Effect.gen(function* () {
      const { other, predecessor } = yield* handedOver(yield* handoverPath)
      yield* predecessor.confirm
      assert.strictEqual(yield* other.end, "SIGKILL")
    })
  )

  it.live("gives up where the predecessor revokes, or hands over something unusable", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const revoked = yield* handedOver(path, '{"_tag":"Aborted","reason":"it took too long"}')
      const aborted = yield* Effect.flip(revoked.predecessor.confirm)
      assert.strictEqual(aborted.message, `process ${revoked.other.pid} serves again: it took too long`)

      const wrong = yield* listeningAt(path)
      const failing = yield* Effect.forkChild(Effect.flip(takeOver(path)))
      yield* wrong.send('{"_tag":"Accepted"}')
      yield* wrong.send('{"_tag":"Sockets","items":[{"protocol":"tcp","host":"0.0.0.0","port":80}]}')
      assert.strictEqual(
        (yield* Fiber.join(failing)).message,
        `process ${wrong.pid} handed over what can't be used: 1 sockets came with 0 descriptors`
      )
    })
  )
})

it.live("a plain start is refused amid a handover, and allowed without a listener", () =>
  Effect.gen(function* () {
    const path = yield* handoverPath
    yield* refuseAmidHandover(path)
    yield* Effect.scoped(
      Effect.gen(function* () {
        yield* offerHandover(path)
        const { message } = yield* Effect.flip(refuseAmidHandover(path))
        assert.strictEqual(message, `process ${process.pid} is handing over to another one`)
      })
    )
    assert.isFalse(Fs.existsSync(path))
    yield* refuseAmidHandover(path)
  })
)

import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { encodeMessage } from "../../adapters/upgrade/Messages.ts"
import { awaitSuccessor, offerHandover } from "../../adapters/upgrade/Predecessor.ts"
import { refuseAmidHandover, takeOver } from "../../adapters/upgrade/Successor.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { handoverPath, hello, listeningAt, nothing, openedFile, timeouts } from "./peer.ts"

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

  it.live("receives a thousand descriptors with their descriptions", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const connected = yield* offerHandover(path)
      const [taking] = yield* Effect.all([Effect.forkChild(takeOver(path))])
      const session = yield* awaitSuccessor(connected, timeouts)
      const { fd, copies } = yield* openedFile(path)
      const sockets = Array.from({ length: 1000 }, (_, index) => ({
        protocol: index % 2 === 0 ? ("tcp" as const) : ("udp" as const),
        host: addressUnsafe(index % 3 === 0 ? "fe80::1%eth0" : "10.0.0.1"),
        port: 1 + index,
        fd
      }))
      const listeners = [
        { place: "unix /run/x.sock", inode: 12, fd },
        { place: "tcp 127.0.0.1:0", port: 7000, fd }
      ]
      const connections = [{ place: "unix /run/x.sock", fd }]
      const handing = yield* Effect.forkChild(session.handOver({ sockets, listeners, connections, lock: fd }))
      const predecessor = yield* Fiber.join(taking)
      const { state, confirm } = predecessor ?? assert.fail("nothing was taken over")
      const without = <A extends { readonly fd: number }>(items: ReadonlyArray<A>) =>
        items.map(({ fd: _, ...item }) => item)
      assert.deepStrictEqual(without(state.sockets), without(sockets))
      assert.deepStrictEqual(without(state.listeners), without(listeners))
      assert.deepStrictEqual(without(state.connections), without(connections))
      const { sockets: ports, listeners: own, connections: idle, lock = -1 } = state
      const received = [...[...ports, ...own, ...idle].map((item) => item.fd), lock]
      assert.strictEqual(new Set(received).size, 1004)
      const confirming = yield* Effect.forkChild(confirm)
      yield* Fiber.join(handing)
      yield* session.release
      yield* Fiber.join(confirming)
      assert.strictEqual(copies(), 1004)
      for (const each of received) Fs.closeSync(each)
    })
  )

  it.live("closes everything received from a predecessor that ends before the last message", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const connected = yield* offerHandover(path)
      const taking = yield* Effect.forkChild(takeOver(path))
      const { fd, copies } = yield* openedFile(path)
      const items = [{ protocol: "tcp" as const, host: "0.0.0.0", port: 80 }]
      yield* Effect.scoped(
        Effect.gen(function* () {
          const socket = yield* connected
          yield* socket.send({ bytes: encodeMessage({ _tag: "Accepted" }), fds: [] })
          yield* socket.send({ bytes: encodeMessage({ _tag: "Sockets", items }), fds: [fd] })
        })
      )
      assert.isUndefined(yield* Fiber.join(taking))
      assert.strictEqual(copies(), 0)
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

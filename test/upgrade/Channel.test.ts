import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import {
  connectForDescriptors,
  type DescriptorSocket
} from "../../adapters/linux/sockets/DescriptorSocket.ts"
import { hasEnded, receive, send, sendBusy } from "../../adapters/upgrade/Channel.ts"
import { connection } from "../linux/sockets/connection.ts"

const failure = <A>(effect: Effect.Effect<A, { readonly message: string }>) =>
  Effect.map(Effect.flip(effect), ({ message }) => message)
const own = `process ${process.pid}`

/** A process that neither reads nor writes. */
const hanging: DescriptorSocket = {
  peer: { pid: 7, uid: 0 },
  send: () => Effect.never,
  receive: Effect.never
}

describe("a channel between two processes", () => {
  it.live("has the next message that is expected, with its descriptors, past those of a busy process", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connection
      for (const _tag of ["Busy", "Busy", "Accepted"] as const) yield* send(client, { _tag })
      yield* send(client, { _tag: "Lock", items: [{}] }, [0])
      assert.deepStrictEqual(yield* receive(server, "1 minute", "Accepted", "Refused"), {
        message: { _tag: "Accepted" },
        fds: []
      })
      const lock = yield* receive(server, "1 minute", "Lock")
      assert.strictEqual(lock?.fds.length, 1)
      for (const fd of lock?.fds ?? []) Fs.closeSync(fd)
    })
  )

  it.live("fails at a message that is not expected, and keeps none of its descriptors", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connection
      const descriptors = () => Fs.readdirSync("/proc/self/fd").length
      const before = descriptors()
      yield* send(client, { _tag: "Lock", items: [{}] }, [0])
      yield* client.send({ bytes: Buffer.from("?"), fds: [0, 0] })
      for (const what of ["Lock", "something that is no message of a handover"])
        assert.strictEqual(
          yield* failure(receive(server, "1 minute", "Ready", "Busy")),
          `${own} sent ${what} where Ready or Busy was to come`
        )
      assert.strictEqual(descriptors(), before)
    })
  )

  it.live("is over once the other side has closed it", () =>
    Effect.gen(function* () {
      const { accept, path } = yield* connection
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(connectForDescriptors(path), scope)
      const server = yield* accept
      assert.isFalse(yield* hasEnded(server, 20))
      yield* send(client, { _tag: "Ready" })
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(yield* hasEnded(server, "1 minute"))
      assert.isUndefined(yield* receive(server, "1 minute", "Ready"))
      assert.strictEqual(
        yield* failure(send(server, { _tag: "Released" })),
        `${own} can't be sent Released: sendmsg: broken pipe`
      )
    })
  )

  it.effect("fails at a silence, and at a process that reads nothing for three seconds", () =>
    Effect.gen(function* () {
      const failing = <A>(effect: Effect.Effect<A, { readonly message: string }>) =>
        Effect.forkChild(failure(effect), { startImmediately: true })
      const received = yield* failing(receive(hanging, "1 minute", "Ready"))
      const sent = yield* failing(send(hanging, { _tag: "Ready" }))
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(yield* Fiber.join(sent), "process 7 can't be sent Ready: it read nothing for 3s")
      assert.isUndefined(received.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(received), "process 7 sent nothing for 1m")
    })
  )

  it.effect("says every second that this side is busy", () =>
    Effect.gen(function* () {
      let said = 0
      yield* sendBusy({ ...hanging, send: () => Effect.sync(() => void said++) })
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(said, 5)
    })
  )
})

import * as Fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { StateReceiver } from "../../adapters/upgrade/HandoverState.ts"
import { encodeMessage } from "../../adapters/upgrade/Messages.ts"
import { awaitSuccessor, offerHandover } from "../../adapters/upgrade/Predecessor.ts"
import { takeOver } from "../../adapters/upgrade/Successor.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { handoverPath, openedFile, timeouts } from "./peer.ts"

describe("what a process hands over", () => {
  it.live("arrives with all descriptors and their descriptions, a thousand of them", () =>
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

  it.live("is closed where the predecessor ends before the last message", () =>
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

  it("is refused where descriptors lack, or an address is none", () => {
    const [port] = [{ protocol: "tcp" as const, host: "0.0.0.0", port: 80 }]
    const receiver = new StateReceiver()
    const add = (host: string, ...fds: ReadonlyArray<number>) =>
      receiver.add({ _tag: "Sockets", items: [{ ...port, host }] }, fds)
    assert.strictEqual(add("0.0.0.0"), "1 sockets came with 0 descriptors")
    assert.strictEqual(add("localhost", 9), "localhost: not an IPv4 or IPv6 address")
    assert.isUndefined(add("::", 9))
    assert.deepStrictEqual(
      receiver.state.sockets.map(({ host, fd }) => [host.text, fd]),
      [["::", 9]]
    )
  })
})

import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Schedule, Scope } from "effect"
import type * as C from "../../../adapters/linux/Libc.ts"
import {
  connectForDescriptors,
  type DescriptorSocket,
  listenForDescriptors,
  maxDescriptorsPerPacket
} from "../../../adapters/linux/sockets/DescriptorSocket.ts"
import { withFewDescriptors } from "../../relay/descriptors.ts"
import { temporaryFolder } from "../../support/folders.ts"
import { connection, socketPath } from "./connection.ts"

const bytes = (text: string) => new TextEncoder().encode(text)
const descriptors = () => Fs.readdirSync("/proc/self/fd").length
const receive = ({ receive }: DescriptorSocket) =>
  Effect.map(receive, (packet) => packet && { text: Buffer.from(packet.bytes).toString(), fds: packet.fds })

describe("a socket that carries descriptors", () => {
  it.live(
    "delivers each packet whole, with descriptors of the receiver's own, and knows the other process",
    () =>
      Effect.gen(function* () {
        const { client, path, server } = yield* connection
        assert.deepStrictEqual(
          [client.peer, server.peer],
          Array(2).fill({ pid: process.pid, uid: process.getuid?.() })
        )
        assert.strictEqual(Fs.statSync(path).mode & 0o777, 0o600)
        const file = Fs.openSync(path.replace("h.sock", "file"), "w")
        const many = Array<number>(maxDescriptorsPerPacket).fill(file)
        for (const [text, fds] of [
          ["none", []],
          ["one", [file]],
          ["many", many]
        ] as const) {
          yield* client.send({ bytes: bytes(text), fds })
          const packet = yield* receive(server)
          assert.deepStrictEqual([packet?.text, packet?.fds.length], [text, fds.length])
          for (const fd of packet?.fds ?? []) {
            assert.strictEqual(Fs.readlinkSync(`/proc/self/fd/${fd}`), path.replace("h.sock", "file"))
            Fs.closeSync(fd)
          }
        }
        Fs.closeSync(file)
      })
  )

  it.live("waits while the other side does not read, and ends when it has closed", () =>
    Effect.gen(function* () {
      const { accept, path, server } = yield* connection
      const scope = yield* Scope.make()
      const other = yield* Scope.provide(connectForDescriptors(path), scope)
      const reader = yield* accept
      const long = bytes("x".repeat(50_000))
      const sending = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 40 }), () => other.send({ bytes: long, fds: [] })),
        { startImmediately: true }
      )
      yield* Effect.sleep(20)
      assert.isUndefined(sending.pollUnsafe())
      for (let packet = 0; packet < 40; packet++)
        assert.strictEqual((yield* receive(reader))?.text.length, 50_000)
      yield* Fiber.join(sending)
      yield* reader.send({ bytes: bytes("unread"), fds: [] })
      yield* Scope.close(scope, Exit.void)
      assert.isUndefined(yield* receive(reader))
      assert.strictEqual((yield* Effect.flip(reader.send({ bytes: long, fds: [] }))).code, "EPIPE")
      assert.strictEqual(server.peer.pid, process.pid)
    })
  )

  it.live("fails at what does not fit, and keeps none of the descriptors that came with it", () =>
    Effect.gen(function* () {
      const { client, server } = yield* connection
      const before = descriptors()
      yield* client.send({ bytes: new Uint8Array((1 << 16) + 1), fds: [0, 0] })
      assert.strictEqual((yield* Effect.flip(server.receive)).message, "recvmsg: message too long")
      yield* client.send({ bytes: bytes("many"), fds: Array(20).fill(0) })
      yield* Effect.promise(() =>
        withFewDescriptors(async (leave) => {
          leave(3)
          const error = await Effect.runPromise(Effect.flip(server.receive))
          assert.strictEqual(error.message, "recvmsg: too many open files")
        })
      )
      assert.strictEqual(descriptors(), before)
    })
  )

  it.live(
    "replaces one that is there, listens again where it is removed, and removes its own file alone",
    () =>
      Effect.gen(function* () {
        const path = yield* socketPath
        const scope = yield* Scope.make()
        const accept = yield* Scope.provide(listenForDescriptors(path), scope)
        yield* Effect.scoped(listenForDescriptors(path))
        // The second one has removed its own file.
        assert.isFalse(Fs.existsSync(path))
        const accepting = yield* Effect.forkChild(accept)
        const client = yield* Effect.retry(connectForDescriptors(path), {
          schedule: Schedule.spaced(20),
          while: ({ code }) => code === "ENOENT"
        })
        yield* client.send({ bytes: bytes("again"), fds: [] })
        assert.strictEqual((yield* receive(yield* Fiber.join(accepting)))?.text, "again")
        Fs.rmSync(path)
        Fs.writeFileSync(path, "another's")
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(Fs.readFileSync(path, "utf8"), "another's")
      })
  )

  it.live("names what fails, and leaves no descriptor open", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const before = descriptors()
      const why = (effect: Effect.Effect<unknown, C.Errno, Scope.Scope>) =>
        Effect.map(Effect.flip(Effect.scoped(effect)), ({ message }) => message)
      const long = Path.join(folder, "s".repeat(108))
      assert.deepStrictEqual(
        [
          yield* why(connectForDescriptors(Path.join(folder, "none"))),
          yield* why(connectForDescriptors(long)),
          yield* why(listenForDescriptors(long)),
          yield* why(listenForDescriptors(Path.join(folder, "no", "such", "folder")))
        ],
        [
          "connect: no such file or directory",
          "connect: file name too long",
          "bind: file name too long",
          "bind: no such file or directory"
        ]
      )
      assert.strictEqual(descriptors(), before)
    })
  )
})

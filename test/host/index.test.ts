/** This host's mapper inside another program, from the package's entry alone. */
import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { hostLayer } from "../../adapters/host/index.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { temporaryFolder } from "../support/folders.ts"
import { group, releaseOf } from "../support/groups.ts"

/** Echoes what it receives, on a port from the system. */
const echoServer = Effect.acquireRelease(
  Effect.promise(
    () =>
      new Promise<Net.Server>((resolve) => {
        const server = Net.createServer((socket) => socket.on("error", () => {}).pipe(socket))
        server.listen(0, "127.0.0.1", () => resolve(server))
      })
  ),
  (server) => Effect.sync(() => server.close())
)

/** The echo, or the code of the error. */
const ask = (port: number, text: string) =>
  Effect.promise(
    () =>
      new Promise<string>((resolve) => {
        const socket = Net.connect(port, "127.0.0.1", () => socket.end(text))
        const chunks: Array<Buffer> = []
        socket.on("data", (chunk) => chunks.push(chunk))
        socket.on("end", () => resolve(Buffer.concat(chunks).toString()))
        socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
      })
  )

describe("hostLayer", () => {
  it.live("serves a mapping inside a program, and again in the next program until it is unmapped", () =>
    Effect.gen(function* () {
      const stateDirectory = yield* temporaryFolder
      const { port: backend } = (yield* echoServer).address() as Net.AddressInfo
      const host = hostLayer({ stateDirectory, mode: "proxy" })
      const bindings = yield* Effect.gen(function* () {
        const driver = yield* Driver
        const mapped = yield* Effect.scoped(
          driver.mapPorts(group("0", [`tcp 127.0.0.1 127.0.0.1:${backend}`]))
        )
        assert.strictEqual(yield* ask(mapped[0]?.port ?? 0, "hello"), "hello")
        return mapped
      }).pipe(Effect.provide(host))
      const port = bindings[0]?.port ?? 0
      assert.strictEqual(yield* ask(port, "hello"), "ECONNREFUSED")
      yield* Effect.gen(function* () {
        const driver = yield* Driver
        assert.strictEqual(yield* ask(port, "again"), "again")
        yield* driver.unmapPorts(releaseOf(bindings))
        assert.strictEqual(yield* ask(port, "gone"), "ECONNREFUSED")
      }).pipe(Effect.provide(hostLayer({ stateDirectory, mode: "proxy" })))
    })
  )

  it.live("fails where another user owns the state", () =>
    Effect.gen(function* () {
      const stateDirectory = yield* temporaryFolder
      yield* Layer.build(hostLayer({ stateDirectory, mode: "proxy" }))
      const error = yield* Effect.flip(Layer.build(Layer.fresh(hostLayer({ stateDirectory, mode: "proxy" }))))
      assert.strictEqual(error._tag, "StateLocked")
    })
  )
})

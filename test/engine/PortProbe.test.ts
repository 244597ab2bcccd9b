import { once } from "node:events"
import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { acceptsTcp } from "../../adapters/engine/PortProbe.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

/** A port of 127.0.0.1 on which a server listens until the scope closes. */
const listening = (server: Net.Server) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      await once(server.listen({ host: "127.0.0.1", port: 0 }), "listening")
      return (server.address() as Net.AddressInfo).port
    }),
    () => Effect.sync(() => void server.close())
  )

const accepts = (port: number) => acceptsTcp({ address: addressUnsafe("127.0.0.1"), port })

describe("whether a port takes connections", () => {
  it.live("is found by a connection, which is closed at once", () =>
    Effect.gen(function* () {
      const server = Net.createServer({ allowHalfOpen: false })
      const ended = once(server, "connection").then(([socket]) => once(socket.resume(), "close"))
      assert.isTrue(yield* accepts(yield* listening(server)))
      yield* Effect.promise(() => ended)
    })
  )

  it.live("is no where nobody listens", () =>
    Effect.gen(function* () {
      assert.isFalse(yield* accepts(yield* Effect.scoped(listening(Net.createServer()))))
    })
  )
})

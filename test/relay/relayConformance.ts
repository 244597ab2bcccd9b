/** What every implementation of `Relay` must do, as far as it can be seen without traffic. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { type HostSocket, HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import type { Protocol } from "../../src/protocol/Protocol.ts"
import { Relay, type Route } from "../../src/relay/Relay.ts"

const loopback = addressUnsafe("127.0.0.1")
const any = addressUnsafe("0.0.0.0")

/** Nothing else uses the ports from `firstPort` to `firstPort + 9` of the layer's host. */
export const relayConformance = (
  name: string,
  layer: Layer.Layer<Relay | HostSockets>,
  firstPort: number
): void => {
  describe(name, () => {
    const test = <E>(title: string, body: Effect.Effect<void, E, Relay | HostSockets>) =>
      it.live(title, () => Effect.provide(body, layer))

    const reserve = Effect.fnUntraced(function* (protocol: Protocol, host = loopback, port = firstPort) {
      return yield* (yield* HostSockets).open(protocol, host, port)
    })

    const routeOn = (socket: HostSocket, more: Partial<Route> = {}): Route => ({
      protocol: socket.protocol,
      host: socket.host,
      port: socket.port,
      socket,
      backend: { address: loopback, port: 9 },
      admits: "everything",
      allow: undefined,
      proxyProtocol: undefined,
      udpIdle: undefined,
      ...more
    })

    const nothing = { connections: 0, refused: 0, bytesIn: 0, bytesOut: 0 }
    const countOf = ({ protocol, host, port }: Route) => ({ protocol, host, port, ...nothing })

    test(
      "relays TCP and UDP",
      Effect.gen(function* () {
        assert.deepStrictEqual([...(yield* Relay).protocols], ["tcp", "udp"])
      })
    )

    for (const protocol of ["tcp", "udp"] as const) {
      test(
        `counts a ${protocol} route from its opening to its closing`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const route = routeOn(yield* reserve(protocol))
          assert.deepStrictEqual([...(yield* relay.counted)], [])
          yield* relay.open(route)
          assert.deepStrictEqual([...(yield* relay.counted)], [countOf(route)])
          yield* relay.close(route)
          assert.deepStrictEqual([...(yield* relay.counted)], [])
        })
      )

      test(
        `takes a second ${protocol} route for a frontend in the place of the first`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const route = routeOn(yield* reserve(protocol))
          yield* relay.open(route)
          yield* relay.open({ ...route, backend: { address: loopback, port: 10 } })
          assert.deepStrictEqual([...(yield* relay.counted)], [countOf(route)])
          yield* relay.close(route)
          assert.deepStrictEqual([...(yield* relay.counted)], [])
        })
      )

      test(
        `serves several ${protocol} routes on one socket, and closes each by itself`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const socket = yield* reserve(protocol, any)
          const wide = routeOn(socket)
          const one = routeOn(socket, { host: loopback })
          yield* relay.open(wide)
          yield* relay.open(one)
          yield* relay.close(wide)
          assert.deepStrictEqual([...(yield* relay.counted)], [countOf(one)])
        })
      )

      test(
        `lets a ${protocol} port be reserved again at once`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const sockets = yield* HostSockets
          for (let round = 0; round < 3; round++) {
            const route = routeOn(yield* reserve(protocol))
            yield* relay.open(route)
            yield* relay.close(route)
            yield* sockets.close(route.socket)
          }
        })
      )
    }

    test(
      "does nothing when what is not open is closed",
      Effect.gen(function* () {
        const relay = yield* Relay
        const route = routeOn(yield* reserve("tcp"))
        yield* relay.close(route)
        yield* relay.open(route)
        yield* relay.close(route)
        yield* relay.close(route)
        assert.deepStrictEqual([...(yield* relay.counted)], [])
      })
    )

    test(
      "refuses SCTP, and says so",
      Effect.gen(function* () {
        const relay = yield* Relay
        const socket: HostSocket = { protocol: "sctp", host: loopback, port: firstPort, fd: -1 }
        const error = yield* Effect.flip(relay.open(routeOn(socket)))
        assert.strictEqual(error.message, `relay for 127.0.0.1:${firstPort}/sctp failed: SCTP is not relayed`)
        assert.deepStrictEqual([...(yield* relay.counted)], [])
      })
    )
  })
}

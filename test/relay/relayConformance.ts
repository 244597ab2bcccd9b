/** The contract of every implementation of `Relay`. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer, type Scope } from "effect"
import { IpNetwork } from "effect/net"
import { type HostSocket, HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { noneRefused } from "../../src/protocol/Limits.ts"
import type { Endpoint } from "../../src/protocol/PortBinding.ts"
import type { Protocol } from "../../src/protocol/Protocol.ts"
import { Relay, type Route } from "../../src/relay/Relay.ts"
import { until } from "../support/until.ts"

const loopback = addressUnsafe("127.0.0.1")
const any = addressUnsafe("0.0.0.0")

/** Clients of a relay, and its backends. */
export interface Traffic<R> {
  readonly backend: (protocol: "tcp" | "udp") => Effect.Effect<Endpoint, never, R | Scope.Scope>
  /**
   * A client with this source address. It sends something each time the inner effect runs, over the same connection
   * or from the same port, and returns the name of that connection or flow at its backend; `undefined` once it was
   * reset.
   */
  readonly client: (
    route: Route,
    source: string
  ) => Effect.Effect<Effect.Effect<string | undefined, never, R>, never, R | Scope.Scope>
}

/** Nothing else uses the ports from `firstPort` to `firstPort + 9` of the layer's host. */
export const relayConformance = <R>(
  name: string,
  layer: Layer.Layer<Relay | HostSockets | R>,
  firstPort: number,
  traffic: Traffic<R>
): void => {
  describe(name, () => {
    const test = <E>(title: string, body: Effect.Effect<void, E, Relay | HostSockets | R | Scope.Scope>) =>
      it.live(title, () => Effect.provide(Effect.scoped(body), layer))

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

    const nothing = { connections: 0, open: 0, refused: noneRefused, bytesIn: 0, bytesOut: 0 }
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
        `replaces the ${protocol} route of a frontend by a second one`,
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
        `serves several ${protocol} routes on one socket, and closes each separately`,
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
        `ends connections that a ${protocol} route's new allow-list excludes, even if the old list follows at once`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const backend = yield* traffic.backend(protocol)
          const route = routeOn(yield* reserve(protocol), { backend })
          yield* relay.open(route)
          const inside = yield* traffic.client(route, "127.0.1.1")
          const outside = yield* traffic.client(route, "127.0.2.1")
          const before = [yield* inside, yield* outside]
          assert.notInclude(before, undefined)
          const narrow = { ...route, allow: [IpNetwork.fromStringUnsafe("127.0.1.0/24")] }
          yield* Effect.all([relay.open(narrow), relay.open(route)], { concurrency: "unbounded" })
          assert.strictEqual(yield* inside, before[0])
          assert.notStrictEqual(yield* outside, before[1])
          const after = yield* traffic.client(route, "127.0.2.1")
          assert.isDefined(yield* after)
        })
      )

      test(
        `keeps the connections of a ${protocol} route that becomes idle, and begins no other until it is not`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const backend = yield* traffic.backend(protocol)
          const route = routeOn(yield* reserve(protocol), { backend })
          yield* relay.open(route)
          const early = yield* traffic.client(route, "127.0.1.1")
          const name = yield* early
          assert.isDefined(name)
          yield* relay.open({ ...route, idle: true })
          assert.strictEqual(yield* early, name)
          const late = yield* traffic.client(route, "127.0.1.2")
          assert.isUndefined(yield* late)
          yield* relay.open(route)
          assert.strictEqual(yield* early, name)
          const last = yield* traffic.client(route, "127.0.1.3")
          assert.isDefined(yield* last)
        })
      )

      test(
        `keeps the connections of a service's ${protocol} route without slots, and begins no other there`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const socket = yield* reserve(protocol)
          const slots = Array.from({ length: 64 }, (_, slot) => slot)
          const [first, second] = [yield* traffic.backend(protocol), yield* traffic.backend(protocol)]
          const part = (backend: Endpoint, own: ReadonlyArray<number>) =>
            routeOn(socket, { backend, share: { balance: "random", size: 64, slots: own } })
          yield* relay.open(part(first, slots))
          yield* relay.open(part(second, []))
          const early = yield* traffic.client(part(first, slots), "127.0.1.1")
          const name = yield* early
          assert.isDefined(name)
          yield* relay.open(part(first, []))
          yield* relay.open(part(second, slots))
          assert.strictEqual(yield* early, name)
          const late = yield* traffic.client(part(second, slots), "127.0.1.2")
          assert.isDefined(yield* late)
          yield* relay.open(part(second, []))
          const last = yield* traffic.client(part(second, []), "127.0.1.3")
          assert.isUndefined(yield* last)
          assert.strictEqual(yield* early, name)
        })
      )

      test(
        `keeps connections that a ${protocol} route's new allow-list admits, and those of a route without one`,
        Effect.gen(function* () {
          const relay = yield* Relay
          const backend = yield* traffic.backend(protocol)
          const allow = [IpNetwork.fromStringUnsafe("127.0.1.0/24")]
          const route = routeOn(yield* reserve(protocol), { backend, allow })
          const other = routeOn(yield* reserve(protocol, loopback, firstPort + 1), { backend })
          yield* relay.open(route)
          yield* relay.open(other)
          const clients = [
            yield* traffic.client(route, "127.0.1.1"),
            yield* traffic.client(other, "127.0.2.1")
          ]
          const before = yield* Effect.all(clients)
          assert.notInclude(before, undefined)
          yield* relay.open({ ...route, allow: [...allow, IpNetwork.fromStringUnsafe("10.0.0.0/8")] })
          yield* relay.open({ ...route, allow: undefined, backend: { address: loopback, port: 9 } })
          yield* relay.open({ ...route, allow: [IpNetwork.fromStringUnsafe("127.0.1.1/32")] })
          assert.deepStrictEqual(yield* Effect.all(clients), before)
          const open = Effect.map(relay.counted, (counts) => counts.map((count) => count.open))
          assert.deepStrictEqual(yield* open, [1, 1])
          // Excludes the only client.
          yield* relay.open({ ...route, allow: [IpNetwork.fromStringUnsafe("127.0.3.1/32")] })
          yield* until(open, (counts) => counts[0] === 0)
          assert.deepStrictEqual(yield* open, [0, 1])
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
      "ignores closing a route that is not open",
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
      "refuses SCTP with the reason",
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

/** What every implementation of `HostSockets` must do. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

const any4 = addressUnsafe("0.0.0.0")
const any6 = addressUnsafe("::")
const loopback4 = addressUnsafe("127.0.0.1")
const loopback6 = addressUnsafe("::1")

/** The layer's host has the addresses 127.0.0.1 and ::1, and nothing else that uses the ports 18000 to 18099. */
export const hostSocketsConformance = (name: string, layer: Layer.Layer<HostSockets>): void => {
  describe(name, () => {
    const test = <E>(title: string, body: Effect.Effect<void, E, HostSockets>) =>
      it.live(title, () => Effect.provide(body, layer))

    for (const protocol of ["tcp", "udp"] as const) {
      test(
        `refuses a ${protocol} port in use`,
        Effect.gen(function* () {
          const sockets = yield* HostSockets
          yield* sockets.open(protocol, loopback4, 18000)
          const error = yield* Effect.flip(sockets.open(protocol, loopback4, 18000))
          assert.deepStrictEqual([error.reason, error.message], ["InUse", "address already in use"])
        })
      )

      for (const [any, one] of [
        [any4, loopback4],
        [any6, loopback6]
      ] as const)
        test(
          `refuses ${protocol} ${one.text} where ${any.text} is held, and the other way round`,
          Effect.gen(function* () {
            const sockets = yield* HostSockets
            yield* sockets.open(protocol, any, 18001)
            yield* sockets.open(protocol, one, 18002)
            const covered = yield* Effect.flip(sockets.open(protocol, one, 18001))
            const covering = yield* Effect.flip(sockets.open(protocol, any, 18002))
            assert.deepStrictEqual([covered.reason, covering.reason], ["InUse", "InUse"])
          })
        )

      test(
        `holds one ${protocol} port on both families at once`,
        Effect.gen(function* () {
          const sockets = yield* HostSockets
          const six = yield* sockets.open(protocol, any6, 18003)
          const four = yield* sockets.open(protocol, any4, 18003)
          assert.deepStrictEqual([six.host, six.port, four.host], [any6, 18003, any4])
        })
      )

      test(
        `frees a ${protocol} port at once`,
        Effect.gen(function* () {
          const sockets = yield* HostSockets
          for (let round = 0; round < 3; round++)
            yield* sockets.close(yield* sockets.open(protocol, any4, 18004))
        })
      )

      test(
        `accepts every admission for ${protocol}, in any order`,
        Effect.gen(function* () {
          const sockets = yield* HostSockets
          const socket = yield* sockets.open(protocol, any6, 18005)
          for (const admission of ["everything", "everything", "loopback", "nothing", "everything"] as const)
            yield* sockets.admit(socket, admission)
        })
      )
    }

    test(
      "keeps the ports of protocols apart",
      Effect.gen(function* () {
        const sockets = yield* HostSockets
        yield* sockets.open("tcp", any4, 18006)
        yield* sockets.open("udp", any4, 18006)
      })
    )

    test(
      "ignores a second close, even when another socket has the descriptor now",
      Effect.gen(function* () {
        const sockets = yield* HostSockets
        const first = yield* sockets.open("tcp", any4, 18007)
        yield* sockets.close(first)
        yield* sockets.open("tcp", any4, 18007)
        yield* sockets.close(first)
        yield* sockets.admit(first, "everything")
        const error = yield* Effect.flip(sockets.open("tcp", any4, 18007))
        assert.strictEqual(error.reason, "InUse")
      })
    )

    test(
      "returns an adopted socket to the first caller that opens its port",
      Effect.gen(function* () {
        const sockets = yield* HostSockets
        const four = yield* sockets.open("tcp", any4, 18008)
        const six = yield* sockets.open("udp", loopback6, 18008)
        yield* sockets.adopt([four, six])
        assert.strictEqual(yield* sockets.open("tcp", any4, 18008), four)
        assert.strictEqual(yield* sockets.open("udp", loopback6, 18008), six)
        const error = yield* Effect.flip(sockets.open("tcp", any4, 18008))
        assert.strictEqual(error.reason, "InUse")
        assert.deepStrictEqual(yield* sockets.closeUnopened, [])
      })
    )

    test(
      "returns an adopted socket of the unspecified address to a caller that opens an address it covers",
      Effect.gen(function* () {
        const sockets = yield* HostSockets
        const wide = yield* sockets.open("tcp", any4, 18009)
        yield* sockets.adopt([wide])
        yield* sockets.open("tcp", loopback6, 18009)
        assert.strictEqual(yield* sockets.open("tcp", loopback4, 18009), wide)
      })
    )

    test(
      "closes adopted sockets that were never opened, and nothing else",
      Effect.gen(function* () {
        const sockets = yield* HostSockets
        const kept = yield* sockets.open("tcp", any4, 18010)
        const opened = yield* sockets.open("tcp", any4, 18011)
        const left = yield* sockets.open("tcp", any4, 18012)
        yield* sockets.adopt([opened, left])
        yield* sockets.open("tcp", any4, 18011)
        assert.deepStrictEqual(yield* sockets.closeUnopened, [left])
        assert.deepStrictEqual(yield* sockets.held, [kept, opened])
        yield* sockets.open("tcp", any4, 18012)
      })
    )

    test(
      "returns a range of ephemeral ports",
      Effect.gen(function* () {
        const { range } = yield* (yield* HostSockets).ephemeral
        assert.isTrue(1 <= range.first && range.first <= range.last && range.last <= 65535)
      })
    )
  })
}

import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { map, refused } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { makeLives, snapshot } from "../support/lives.ts"

const range = (last: number) => group(`8080-${last}`, ["tcp 10.99.0.1 172.17.0.3:80"])

/** A process that waits for port 8080, on which an earlier one mapped this and another process listened when it started. */
const waiting = <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { life, take } = yield* makeLives
    yield* life(map(group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])))
    take("tcp 0.0.0.0 8080")
    const free = MemoryHost.useSync((host) => host.free("tcp", addressUnsafe("0.0.0.0"), 8080))
    return yield* life(Effect.andThen(free, use))
  })

describe("a port of a range", () => {
  it.effect(
    "is none that an answered mapping in conflict is to get back, on any address that it covers",
    () =>
      waiting(
        Effect.gen(function* () {
          assert.strictEqual(
            yield* refused(range(8080)),
            "PortsExhausted: bind for 10.99.0.1:8080/tcp failed: all ports are allocated in 8080"
          )
          yield* map(range(8081))
          const { listed, sockets } = yield* snapshot
          assert.deepStrictEqual(listed, ["0.0.0.0 8080 engine conflicted", "10.99.0.1 8081 engine live"])
          assert.deepStrictEqual(sockets, ["10.99.0.1:8081/tcp"])
          assert.strictEqual(
            yield* refused(group("8080-8081", ["tcp 10.99.0.1 172.17.0.4:80"])),
            "PortsExhausted: bind for 10.99.0.1:8080-8081/tcp failed: all ports are allocated in 8080-8081"
          )
        })
      )
  )

  it.effect("may be one that such a mapping waits for in another protocol", () =>
    waiting(
      Effect.gen(function* () {
        const [binding] = yield* map(group("8080-8081", ["udp 0.0.0.0 172.17.0.3:80"]))
        assert.strictEqual(binding?.port, 8080)
      })
    )
  )
})

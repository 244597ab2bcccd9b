import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type HostSockets, MemoryHost } from "../../src/ports/HostSockets.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import type { Frontend } from "../../src/ports/PortTable.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { ports } from "../support/groups.ts"
import { atEveryStep } from "../support/steps.ts"

const at = (host: string, protocol: Frontend["protocol"] = "tcp"): Frontend => ({
  protocol,
  host: addressUnsafe(host)
})

const reserve = (port: string, frontends: ReadonlyArray<Frontend>) =>
  PortAllocator.use((allocator) => allocator.reserve(frontends, ports(port), []))
const portOf = (port: string, frontends: ReadonlyArray<Frontend>) =>
  Effect.map(reserve(port, frontends), ([hold]) => hold?.port)
const refused = (port: string, frontends: ReadonlyArray<Frontend>) =>
  Effect.map(Effect.flip(reserve(port, frontends)), (error) => error.message)
const open = MemoryHost.useSync((host) => host.open().map(({ socket }) => socket))

const test = (
  title: string,
  effect: () => Effect.Effect<void, unknown, PortAllocator | HostSockets | MemoryHost>
) => it.effect(title, () => Effect.provide(effect(), PortAllocator.layerMemory))

describe("PortAllocator", () => {
  test("holds an exact port on every address, by one socket where one address covers another", () =>
    Effect.gen(function* () {
      const holds = yield* reserve("8080", [at("10.99.0.1"), at("::"), at("0.0.0.0")])
      assert.deepStrictEqual(
        holds.map(({ host, port, socket }) => `${host.text} ${port} ${socket.host.text}`),
        ["10.99.0.1 8080 0.0.0.0", ":: 8080 ::", "0.0.0.0 8080 0.0.0.0"]
      )
      assert.deepStrictEqual(yield* open, ["0.0.0.0:8080/tcp", "[::]:8080/tcp"])
    }))

  test("holds a port until the last mapping on its socket is released, in any order", () =>
    Effect.gen(function* () {
      const allocator = yield* PortAllocator
      for (const order of [
        [0, 1],
        [1, 0]
      ] as const) {
        const holds = yield* reserve("8080", [at("0.0.0.0"), at("10.99.0.1")])
        const [first, last] = order.map((index) => holds[index]).filter((hold) => hold !== undefined)
        yield* allocator.release(first === undefined ? [] : [first])
        assert.deepStrictEqual(yield* open, ["0.0.0.0:8080/tcp"])
        assert.strictEqual(
          yield* refused("8080", [at("127.0.0.1")]),
          "bind for 127.0.0.1:8080/tcp failed: port is already allocated"
        )
        yield* allocator.release(last === undefined ? [] : [last])
        yield* allocator.release(holds)
        assert.deepStrictEqual(yield* open, [])
      }
    }))

  test("distinguishes a port of another mapping from one of another process", () =>
    Effect.gen(function* () {
      const host = yield* MemoryHost
      host.take("tcp", addressUnsafe("::"), 81)
      yield* reserve("80", [at("10.0.0.1")])
      assert.strictEqual(
        yield* refused("80", [at("::"), at("0.0.0.0")]),
        "bind for 0.0.0.0:80/tcp failed: port is already allocated"
      )
      assert.strictEqual(
        yield* refused("81", [at("0.0.0.0"), at("::")]),
        "bind for [::]:81/tcp failed: address already in use"
      )
      assert.deepStrictEqual(yield* open, ["10.0.0.1:80/tcp"])
    }))

  test("assigns both addresses the next port when the first of a range is taken on one", () =>
    Effect.gen(function* () {
      const host = yield* MemoryHost
      host.take("tcp", addressUnsafe("::"), 8000)
      assert.strictEqual(yield* portOf("8000-8002", [at("0.0.0.0"), at("::")]), 8001)
      assert.deepStrictEqual(yield* open, ["0.0.0.0:8001/tcp", "[::]:8001/tcp"])
    }))

  test("counts up from the last port assigned, wraps, and reports when a range is exhausted", () =>
    Effect.gen(function* () {
      const allocator = yield* PortAllocator
      const first = yield* reserve("8000-8002", [at("0.0.0.0")])
      yield* allocator.release(first)
      assert.strictEqual(yield* portOf("8000-8002", [at("0.0.0.0")]), 8001)
      assert.strictEqual(yield* portOf("8000-8002", [at("0.0.0.0")]), 8002)
      assert.strictEqual(yield* portOf("8000-8002", [at("0.0.0.0")]), 8000)
      assert.strictEqual(
        yield* refused("8000-8002", [at("0.0.0.0")]),
        "bind for 0.0.0.0:8000-8002/tcp failed: all ports are allocated in 8000-8002"
      )
    }))

  test("skips reserved ports for ephemeral requests only", () =>
    Effect.gen(function* () {
      const host = yield* MemoryHost
      host.setEphemeral({ range: { first: 40000, last: 40003 }, reserved: [{ first: 40000, last: 40001 }] })
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* portOf("0", [at("0.0.0.0"), at("::")]), 40002)
        assert.strictEqual(yield* portOf("40000-40003", [at("0.0.0.0")]), 40000)
        assert.strictEqual(yield* portOf("40001", [at("0.0.0.0")]), 40001)
        assert.strictEqual(yield* portOf("0", [at("0.0.0.0"), at("::")]), 40003)
        assert.strictEqual(
          yield* refused("0", [at("0.0.0.0")]),
          "bind for 0.0.0.0:40000-40003/tcp failed: all ports are allocated in 40000-40003"
        )
      }).pipe(Effect.provide(PortAllocator.layer()))
    }))

  test("stops at an error that another port would meet too, and holds nothing", () =>
    Effect.gen(function* () {
      const host = yield* MemoryHost
      host.setAddresses([addressUnsafe("10.0.0.1")])
      host.setUnsupported(["sctp"])
      assert.strictEqual(
        yield* refused("8000-9000", [at("10.0.0.1"), at("10.0.0.2")]),
        "bind for 10.0.0.2:8000/tcp failed: cannot assign requested address"
      )
      assert.strictEqual(
        yield* refused("0", [at("10.0.0.1", "sctp")]),
        "bind for 10.0.0.1:49153/sctp failed: SCTP is not supported by this kernel"
      )
      assert.deepStrictEqual(yield* open, [])
    }))

  test("holds nothing after a failure or an interruption at any bind", () =>
    Effect.gen(function* () {
      const frontends = [at("10.0.0.1"), at("10.0.0.2"), at("fd00::1"), at("10.0.0.1", "udp")]
      const steps = yield* atEveryStep(
        (done) => Effect.tap(reserve("8080", frontends), done),
        () =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* open, [])
          }),
        Effect.void
      )
      assert.deepStrictEqual(
        steps,
        frontends.map(() => "HostSockets.open")
      )
    }))
})

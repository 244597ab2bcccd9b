import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { HeldPorts } from "../../src/ports/HeldPorts.ts"
import { HostSockets, MemoryHost } from "../../src/ports/HostSockets.ts"
import type { Frontend } from "../../src/ports/PortTable.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

const tcp = (host: string): Frontend => ({ protocol: "tcp", host: addressUnsafe(host) })
const udp = (host: string): Frontend => ({ protocol: "udp", host: addressUnsafe(host) })

const open = Effect.map(MemoryHost, (host) => host.open().map(({ socket }) => socket))

const test = (title: string, body: (held: HeldPorts) => Effect.Effect<void, unknown, MemoryHost>) =>
  it.effect(title, () =>
    Effect.flatMap(HostSockets, (sockets) => body(new HeldPorts(sockets))).pipe(
      Effect.provide(HostSockets.layerMemory)
    )
  )

describe("held ports", () => {
  test("share the socket of an unspecified address, until the last of them is released", (held) =>
    Effect.gen(function* () {
      const [specific, any] = yield* held.holdAll([tcp("10.0.0.1"), tcp("0.0.0.0")], 8080, [])
      if (specific === undefined || any === undefined) throw new Error("two holds")
      assert.deepStrictEqual(yield* open, ["0.0.0.0:8080/tcp"])
      assert.strictEqual(specific.socket, any.socket)
      yield* held.release([any])
      assert.deepStrictEqual(yield* open, ["0.0.0.0:8080/tcp"])
      assert.strictEqual(held.blocked([tcp("10.0.0.2")], 8080, [])?.host.text, "10.0.0.2")
      yield* held.release([specific])
      assert.deepStrictEqual(yield* open, [])
      assert.strictEqual(held.blocked([tcp("0.0.0.0")], 8080, []), undefined)
    }))

  test("join the socket that others of their group hold, and collide with every other hold", (held) =>
    Effect.gen(function* () {
      const beside = yield* held.holdAll([tcp("0.0.0.0")], 8080, [])
      assert.strictEqual(held.blocked([tcp("10.0.0.1")], 8080, beside), undefined)
      assert.isDefined(held.blocked([tcp("10.0.0.1")], 8080, []))
      assert.strictEqual(held.blocked([udp("10.0.0.1")], 8080, []), undefined)
      assert.strictEqual(held.blocked([tcp("10.0.0.1")], 8081, []), undefined)
      yield* held.holdAll([tcp("10.0.0.1")], 8080, beside)
      assert.deepStrictEqual(yield* open, ["0.0.0.0:8080/tcp"])
    }))

  test("are none after a refusal, which names the frontend", (held) =>
    Effect.gen(function* () {
      const host = yield* MemoryHost
      host.take("tcp", addressUnsafe("10.0.0.2"), 8080)
      const { frontend, error } = yield* Effect.flip(
        held.holdAll([tcp("10.0.0.1"), tcp("10.0.0.2")], 8080, [])
      )
      assert.deepStrictEqual([frontend.host.text, error.reason], ["10.0.0.2", "InUse"])
      assert.deepStrictEqual(yield* open, [])
      assert.strictEqual(held.blocked([tcp("10.0.0.1")], 8080, []), undefined)
    }))

  test("are released once, however often that is asked for", (held) =>
    Effect.gen(function* () {
      const holds = yield* held.holdAll([tcp("10.0.0.1")], 8080, [])
      yield* held.release([...holds, ...holds])
      const [again] = yield* held.holdAll([tcp("10.0.0.1")], 8080, [])
      yield* held.release(holds)
      assert.deepStrictEqual(yield* open, ["10.0.0.1:8080/tcp"])
      assert.isDefined(again)
    }))
})

import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { IpNetwork } from "effect/net"
import { TestClock } from "effect/testing"
import * as EngineBackends from "../../adapters/engine/EngineBackends.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { network } from "./containers.ts"
import * as Memory from "./MemoryEngine.ts"
import { MemoryEngine } from "./MemoryEngine.ts"

const subnets = ["172.17.0.0/16", "fd00::/64"].map((text) => Result.getOrThrow(IpNetwork.fromString(text)))

const test = (title: string, body: () => Effect.Effect<void, unknown, Backends | MemoryEngine>) =>
  it.effect(title, () =>
    Effect.provide(
      body(),
      EngineBackends.layer(() => []).pipe(
        Layer.provideMerge(Memory.layer({ networks: [network("bridge", { subnets })] }))
      )
    )
  )

const stateOf = (address: string) =>
  Backends.use(({ stateOf }) =>
    stateOf({ backend: { address: addressUnsafe(address), port: 80 }, container: undefined })
  )

describe("backends according to the Engine", () => {
  test("run, are gone from a network of the Engine, or are in none of its networks", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2", "fd00::2"] } })
      yield* engine.run({ name: "db", networks: { bridge: ["172.17.0.3"] } })
      yield* engine.stop("db")
      const asked = ["172.17.0.2", "fd00::2", "172.17.0.3", "fd00::3", "192.168.1.1", "fd01::1"]
      assert.deepStrictEqual(yield* Effect.forEach(asked, stateOf), [
        "running",
        "running",
        "gone",
        "gone",
        "unknown",
        "unknown"
      ])
      assert.strictEqual(engine.listed(), 1)
    }))

  test("are looked up again after a second", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
      assert.strictEqual(yield* stateOf("172.17.0.2"), "running")
      yield* engine.stop("web")
      assert.strictEqual(yield* stateOf("172.17.0.2"), "running")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* stateOf("172.17.0.2"), "gone")
    }))

  test("are unknown while the Engine does not answer, and the Engine gets no request for a while", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.away
      assert.strictEqual(yield* stateOf("172.17.0.2"), "unknown")
      yield* engine.back
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(yield* stateOf("172.17.0.2"), "unknown")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* stateOf("172.17.0.2"), "gone")
    }))
})

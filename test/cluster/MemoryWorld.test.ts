import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { ClusterError } from "../../src/cluster/Etcd.ts"
import { MemoryWorld } from "../../src/cluster/MemoryWorld.ts"

const lost = new ClusterError({
  reason: "Unreachable",
  endpoint: undefined,
  detail: "lost",
  mayBeDone: false
})
const ttl = Duration.seconds(5)

const put = (world: MemoryWorld, key: string, lease?: string) =>
  world.transact({ compare: [], success: [{ _tag: "Put", key, value: "", lease }] })
const keys = (world: MemoryWorld) => world.keys.read("").map(({ key }) => key)

describe("what an etcd in memory holds", () => {
  it.effect("is again what it was at a backup, and each lease of that lives for a whole TTL", () =>
    Effect.gen(function* () {
      const world = yield* MemoryWorld.make
      const lease = yield* world.grant(ttl)
      yield* put(world, "/a", lease)
      const backup = world.backup()
      const watching = yield* Effect.forkChild(Stream.runDrain(world.watch("a", "/", 1)))
      yield* TestClock.adjust("4 seconds")
      const later = yield* world.grant(ttl)
      yield* put(world, "/b", later)
      yield* world.restore(backup, lost)
      assert.deepStrictEqual([keys(world), world.keys.revision], [["/a"], 2])
      assert.deepStrictEqual(yield* Fiber.await(watching), Exit.fail(lost))
      assert.strictEqual((yield* Effect.flip(world.keepAlive(later)))._tag, "LeaseLost")
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(keys(world), ["/a"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(keys(world), [])
    })
  )

  it.effect("is watched by hosts, each of which can lose its watches", () =>
    Effect.gen(function* () {
      const world = yield* MemoryWorld.make
      const watch = (host: string) =>
        Effect.forkChild(Stream.runCollect(Stream.take(world.watch(host, "/", 1), 2)))
      const [a, b] = [yield* watch("a"), yield* watch("b")]
      yield* TestClock.adjust(0)
      world.endWatches(lost, "a")
      yield* put(world, "/a")
      assert.deepStrictEqual(yield* Fiber.await(a), Exit.fail(lost))
      assert.deepStrictEqual(
        (yield* Fiber.join(b)).map(({ revision }) => revision),
        [1, 2]
      )
    })
  )
})

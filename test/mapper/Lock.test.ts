import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { Lock } from "../../src/mapper/Lock.ts"

/** Notes `name` when it has the lock, and keeps it until `until`. */
const noting = (notes: Array<string>, name: string, until: Effect.Effect<void> = Effect.void) =>
  Effect.andThen(
    Effect.sync(() => void notes.push(name)),
    until
  )

const started = { startImmediately: true }

describe("Lock", () => {
  it.effect("lets in one at a time, in the order in which they asked", () =>
    Effect.gen(function* () {
      const lock = new Lock()
      const notes: Array<string> = []
      const first = yield* Deferred.make<void>()
      const second = yield* Deferred.make<void>()
      const fibers = [
        yield* Effect.forkChild(lock.alone(noting(notes, "first", Deferred.await(first))), started),
        yield* Effect.forkChild(lock.alone(noting(notes, "second", Deferred.await(second))), started),
        yield* Effect.forkChild(lock.alone(noting(notes, "third")), started)
      ]
      assert.deepStrictEqual(notes, ["first"])
      yield* Deferred.succeed(first, undefined)
      // Whoever asks now is behind those who wait, though none of them may have gone on yet.
      fibers.push(yield* Effect.forkChild(lock.alone(noting(notes, "fourth")), started))
      yield* Effect.yieldNow
      assert.deepStrictEqual(notes, ["first", "second"])
      yield* Deferred.succeed(second, undefined)
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(notes, ["first", "second", "third", "fourth"])
    })
  )

  it.effect("is free again after a failure, a defect and an interruption", () =>
    Effect.gen(function* () {
      const lock = new Lock()
      assert.deepStrictEqual(yield* Effect.exit(lock.alone(Effect.fail("no"))), Exit.fail("no"))
      assert.deepStrictEqual(yield* Effect.exit(lock.alone(Effect.die("broken"))), Exit.die("broken"))
      const holder = yield* Effect.forkChild(lock.alone(Effect.never), started)
      yield* Fiber.interrupt(holder)
      assert.strictEqual(yield* lock.alone(Effect.succeed("free")), "free")
    })
  )

  it.effect("passes over whoever is interrupted while it waits, and runs nothing of it", () =>
    Effect.gen(function* () {
      const lock = new Lock()
      const notes: Array<string> = []
      const first = yield* Deferred.make<void>()
      const holder = yield* Effect.forkChild(lock.alone(Deferred.await(first)), started)
      const waits = (name: string) => Effect.forkChild(lock.alone(noting(notes, name)), started)
      const [early, late, next] = [yield* waits("early"), yield* waits("late"), yield* waits("next")]
      yield* Fiber.interrupt(early)
      yield* Deferred.succeed(first, undefined)
      yield* Fiber.join(holder)
      // It has the lock by now, and did not go on yet.
      late.interruptUnsafe()
      yield* Fiber.join(next)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(late)))
      assert.deepStrictEqual(notes, ["next"])
    })
  )

  it.effect("leaves only the wait interruptible, where the caller is not and says so", () =>
    Effect.gen(function* () {
      const lock = new Lock()
      const notes: Array<string> = []
      const first = yield* Deferred.make<void>()
      const second = yield* Deferred.make<void>()
      yield* Effect.forkChild(lock.alone(Deferred.await(first)), started)
      const held = (name: string, until: Effect.Effect<void> = Effect.void) =>
        Effect.forkChild(
          Effect.uninterruptibleMask((restore) => lock.alone(noting(notes, name, until), restore)),
          started
        )
      const interrupted = yield* held("waits")
      yield* Fiber.interrupt(interrupted)
      const runs = yield* held("runs", Deferred.await(second))
      yield* Deferred.succeed(first, undefined)
      yield* Effect.yieldNow
      runs.interruptUnsafe()
      yield* Deferred.succeed(second, undefined)
      yield* Fiber.await(runs)
      assert.deepStrictEqual(notes, ["runs"])
    })
  )

  it.effect("holds up no one by the length of its queue", () =>
    Effect.gen(function* () {
      const lock = new Lock()
      let ran = 0
      const count = Effect.sync(() => void ran++)
      const all = Effect.forEach(
        Array.from({ length: 50_000 }),
        () => lock.alone(Effect.andThen(Effect.yieldNow, count)),
        {
          concurrency: "unbounded",
          discard: true
        }
      )
      yield* all
      assert.strictEqual(ran, 50_000)
    })
  )
})

import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import { ClusterError, type Etcd, LeaseLost, type TransactionResult } from "../../src/cluster/Etcd.ts"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { retryEtcd } from "../../src/cluster/retryEtcd.ts"

const patience = Duration.seconds(3)

type Attempt = ReturnType<Etcd["Service"]["transact"]>

const failed = (detail: string, mayBeDone: boolean, reason: ClusterError["reason"] = "Unreachable") =>
  Effect.fail(new ClusterError({ reason, endpoint: undefined, detail, mayBeDone }))

const done = { succeeded: true, revision: 2, reads: [] } satisfies TransactionResult

/** What a transaction ends with whose attempts end so, the later ones like the last, and how many there were. */
const transacted = (...attempts: readonly [Attempt, ...ReadonlyArray<Attempt>]) =>
  Effect.gen(function* () {
    const memory = yield* MemoryEtcd
    let count = 0
    const transact = () => Effect.suspend(() => attempts[count++] ?? (attempts.at(-1) as Attempt))
    const etcd = retryEtcd({ ...memory.connection("a"), transact }, patience)
    const asking = yield* Effect.forkChild(Effect.result(etcd.transact({ compare: [], success: [] })))
    yield* TestClock.adjust(patience)
    return { result: yield* Fiber.join(asking), count }
  }).pipe(Effect.provide(MemoryEtcd.layer))

const failure = (...attempts: Parameters<typeof transacted>) =>
  Effect.map(transacted(...attempts), ({ result }) => {
    const { message, mayBeDone } = Result.getOrThrow(Result.flip(result)) as ClusterError
    return { message, mayBeDone }
  })

describe("a request to etcd", () => {
  it.effect("is made again where no endpoint answered, and else is not", () =>
    Effect.gen(function* () {
      const unanswered = failed("no answer", true)
      const succeeded = yield* transacted(unanswered, unanswered, Effect.succeed(done))
      assert.deepStrictEqual([Result.getOrThrow(succeeded.result), succeeded.count], [done, 3])
      for (const no of [failed("no space", false, "Full"), Effect.fail(new LeaseLost({ lease: "7" }))])
        assert.strictEqual((yield* transacted(no, Effect.succeed(done))).count, 1)
    })
  )

  it.effect(
    "ends in time with what its last attempt failed with, and says if any may have carried it out",
    () =>
      Effect.gen(function* () {
        const refused = failed("no process is listening there", false)
        assert.deepStrictEqual(yield* failure(refused), {
          message: "etcd: no process is listening there",
          mayBeDone: false
        })
        assert.deepStrictEqual(yield* failure(failed("the connection broke", true), refused), {
          message: "etcd: no process is listening there",
          mayBeDone: true
        })
        assert.deepStrictEqual(yield* failure(failed("no answer", true), failed("no space", false, "Full")), {
          message: "etcd: no space",
          mayBeDone: true
        })
      })
  )

  it.effect("may be carried out where time is over while an attempt is on its way", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* failure(Effect.never), {
        message: "etcd: no answer within 3 s",
        mayBeDone: true
      })
      assert.deepStrictEqual(yield* failure(failed("no process is listening there", false), Effect.never), {
        message: "etcd: no process is listening there",
        mayBeDone: true
      })
    })
  )
})

import { assert, describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"
import { asking, key, message, prefix, put } from "./asking.ts"

describe("a watch of etcd", () => {
  testNeeding(
    "reads what a watch has missed, however much, and refuses what is too long to write",
    ["etcd"],
    () =>
      Effect.gen(function* () {
        const { urls } = yield* startEtcd()
        yield* asking(urls, (etcd) =>
          Effect.gen(function* () {
            const { revision } = yield* put(key)(etcd)
            const value = "v".repeat(512 * 1024)
            const values = [value, value]
            for (let index = 0; index < 4; index++)
              yield* etcd.transact({
                compare: [],
                success: values.map((each, part) => ({
                  _tag: "Put",
                  key: `${prefix}${index}/${part}`,
                  value: each
                }))
              })
            const changes = yield* etcd.watch(prefix, revision).pipe(
              Stream.flatMap((batch) => Stream.fromIterable(batch.changes)),
              Stream.take(8),
              Stream.runCollect
            )
            assert.deepStrictEqual(
              changes.map((change) => (change._tag === "Put" ? change.entry.value.length : 0)),
              Array(8).fill(value.length)
            )
            assert.strictEqual(
              yield* message(put(key, "v".repeat(1_600_000))(etcd)),
              `etcd at ${urls}: request is too large`
            )
          })
        )
      })
  )
})

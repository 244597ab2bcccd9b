import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { tableRemoval } from "../../adapters/cli/removeTable.ts"
import { makeNamespaceLock } from "../../adapters/linux/nft/NamespaceLock.ts"
import { describeInNamespace, run } from "../lab/ThreadNamespace.ts"

const removed = Effect.scoped(Effect.flatten(tableRemoval))
const tables = () =>
  run("nft list tables")
    .trim()
    .split("\n")
    .filter((line) => line !== "")

describeInNamespace("the removal of the kernel's table", () => {
  it.live("takes the table and the draft of one that was killed, no others, and says if there was any", () =>
    Effect.gen(function* () {
      for (const name of ["portmapper", "portmapper-draft", "other"]) run(`nft add table inet ${name}`)
      assert.isTrue(yield* removed)
      assert.deepStrictEqual(tables(), ["table inet other"])
      assert.isFalse(yield* removed)
    })
  )

  it.live("is refused while a process keeps the table, which is named", () =>
    Effect.gen(function* () {
      run("nft add table inet portmapper")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* (yield* makeNamespaceLock("portmapper")).take
          const { message } = yield* Effect.flip(removed)
          assert.match(
            message,
            new RegExp(
              `^reset refused: process ${process.pid} \\(.+\\) keeps the table inet portmapper; stop it first$`
            )
          )
        })
      )
      assert.include(tables(), "table inet portmapper")
      assert.isTrue(yield* removed)
    })
  )

  it.live("is done by no other process before the scope closes", () =>
    Effect.gen(function* () {
      run("nft add table inet portmapper")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* tableRemoval
          assert.include((yield* Effect.flip(removed)).message, "reset refused: process")
        })
      )
      assert.isTrue(yield* removed)
    })
  )
})

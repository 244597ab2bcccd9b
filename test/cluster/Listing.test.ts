import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { group } from "../support/groups.ts"
import { makeHost, other, refusedBy, testHosts as test, web } from "./MemoryHosts.ts"

describe("the list of a cluster", () => {
  test(
    "names the container of a port once the Engine has told it, and so does a refusal",
    Effect.gen(function* () {
      const a = yield* makeHost("a", {
        backends: Backends.of({
          stateOf: () => Effect.succeed("running"),
          containers: {
            changed: Effect.sleep("1 second"),
            attribute: (mappings) =>
              Effect.succeed(mappings.map(() => ({ _tag: "BelongsTo" as const, container: "web" }))),
            textOf: (container) => `${container}/0123456789ab`
          }
        })
      })
      const b = yield* makeHost("b")
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* b.refused(group("8080", [other])), refusedBy("held by host a, container web"))
      assert.deepStrictEqual(
        (yield* b.listedOfAll).map(({ at, container }) => `${at?.host} ${container}`),
        ["a web/0123456789ab", "a web/0123456789ab"]
      )
    })
  )
})

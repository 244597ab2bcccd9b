import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { FirewallError, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import {
  Backends,
  containerOf,
  eachRoute,
  mapperContext,
  recordAgain
} from "../../src/mapper/MapperContext.ts"
import { MemoryStore, StoreError } from "../../src/mapper/MappingStore.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { map, testMapper as test } from "../support/calls.ts"
import { group } from "../support/groups.ts"

const web = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])

describe("a failed change", () => {
  test("of the table makes it dirty until all of it is replaced", () =>
    Effect.gen(function* () {
      const { firewall, mappings } = yield* mapperContext
      const memory = yield* MemoryFirewall
      const change = firewall.apply({ add: [], remove: [] })
      memory.refuse(new FirewallError({ reason: "Busy", operation: "changing", detail: "no buffers" }))
      yield* Effect.flip(change)
      yield* Effect.flip(firewall.replace([]))
      memory.refuse(undefined)
      yield* change
      assert.deepStrictEqual({ ...mappings.dirty }, { table: true, record: false })
      yield* firewall.replace([])
      assert.deepStrictEqual({ ...mappings.dirty }, { table: false, record: false })
    }))

  test("of the record makes it dirty, whatever was to be changed", () =>
    Effect.gen(function* () {
      const { store, mappings } = yield* mapperContext
      const memory = yield* MemoryStore
      memory.refuse(new StoreError({ reason: "Full", operation: "recording", detail: "no space left" }))
      for (const change of [
        store.put([]),
        store.remove([]),
        store.putEngine({ epoch: 1, activated: false })
      ]) {
        mappings.dirty.record = false
        const failed = yield* Effect.exit(change)
        assert.strictEqual(mappings.dirty.record, failed._tag === "Failure")
      }
    }))
})

describe("what a failed release keeps", () => {
  /** The first puts of the record fail. */
  const failing = (count: number) => {
    let left = count
    return (step: string) =>
      step === "MappingStore.put" && left-- > 0 ? Effect.fail(new InjectedFailure({ step })) : Effect.void
  }

  for (const [failures, is, lines] of [
    [3, "is recorded again where the fourth attempt succeeds", []],
    [
      4,
      "is logged where it does not",
      ["recording again what is kept: put failed: injected failure at MappingStore.put"]
    ]
  ] as const)
    test(is, () =>
      Effect.gen(function* () {
        yield* map(web)
        const context = yield* mapperContext
        const logged: Array<string> = []
        yield* recordAgain(context, [...context.mappings.all()]).pipe(
          Effect.provideService(Steps, failing(failures)),
          Effect.provide(
            Logger.layer([Logger.make(({ message }) => void logged.push([message].flat().join(" ")))])
          )
        )
        assert.deepStrictEqual(logged, [...lines])
      })
    )
})

describe("changes of routes", () => {
  it.effect("that were begun are finished where another one fails", () =>
    Effect.gen(function* () {
      const done: Array<number> = []
      const failed = yield* Effect.flip(
        eachRoute([1, 2, 3], (one) =>
          one === 3
            ? Effect.fail("refused")
            : Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => void done.push(one))
              )
        )
      )
      assert.deepStrictEqual([failed, done], ["refused", [1, 2]])
    })
  )
})

describe("the container of a mapping", () => {
  const labelled = new Map([["portmapper.container", "web/0123456789ab"]])
  const unknown = Backends.of({ stateOf: () => Effect.succeed("unknown") })
  const engine = Backends.of({
    ...unknown,
    containers: {
      changed: Effect.never,
      attribute: () => Effect.succeed([]),
      textOf: (container) => `named/${container}`
    }
  })

  it("is the one that the Engine knows, else that of its label", () => {
    for (const [container, labels, backends, text] of [
      ["1", labelled, engine, "named/1"],
      [undefined, labelled, engine, "web/0123456789ab"],
      ["1", labelled, unknown, "web/0123456789ab"],
      ["1", new Map<string, string>(), unknown, undefined]
    ] as const)
      assert.strictEqual(containerOf({ container, labels }, backends), text)
  })
})

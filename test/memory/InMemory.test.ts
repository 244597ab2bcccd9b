import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as InMemory from "../../adapters/memory/InMemory.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CurrentOwner } from "../../src/protocol/Driver.ts"
import { mapRequest, unmapRequest } from "../support/requests.ts"

describe("in-process calls", () => {
  it.effect("take values and return values", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* InMemory.activate, { Implements: ["PortMapper"] })
      const { PortBindings } = yield* InMemory.mapPorts(mapRequest(8080))
      assert.deepStrictEqual(
        PortBindings?.map(({ FrontendPort }) => FrontendPort),
        [8080]
      )
      assert.deepStrictEqual(yield* InMemory.unmapPorts(unmapRequest(8080)), {})
      assert.deepStrictEqual(yield* InMemory.listPorts, { Mappings: [] })
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.effect("have the same results in each run under the test clock", () =>
    Effect.gen(function* () {
      const run = Effect.gen(function* () {
        const answers: Array<unknown> = []
        for (const port of [0, 8080, 0]) {
          answers.push(yield* InMemory.mapPorts(mapRequest(port)))
          yield* TestClock.adjust("1 minute")
        }
        answers.push(
          yield* Effect.flip(
            InMemory.mapPorts({ Reqs: [{ ...mapRequest(8080).Reqs[0], BackendPort: 81 }] })
          ).pipe(Effect.map(({ message }) => message))
        )
        answers.push(yield* Effect.provideService(InMemory.listPorts, CurrentOwner, "cli"))
        return JSON.stringify(answers)
      })
      const once = Effect.provide(run, PortMapper.layerMemory()).pipe(Effect.tap(() => TestClock.setTime(0)))
      yield* TestClock.setTime(0)
      const first = yield* once
      assert.strictEqual(yield* once, first)
      assert.include(first, '"Since":"1970-01-01T00:01:00.000Z"')
    })
  )
})

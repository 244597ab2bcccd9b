import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as InMemory from "../../adapters/memory/InMemory.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { echo, grant } from "../support/drivers.ts"
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

  it.effect("take text and return text", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* InMemory.callText("PortMapper.MapPorts", '{"Reqs":[]}'),
        '{"PortBindings":[],"Err":""}'
      )
      const error = yield* Effect.flip(InMemory.callText("PortMapper.MapPorts", '{"Reqs":['))
      assert.strictEqual(error.message, "bad request: unexpected end of JSON input")
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

  it.effect("time out after ten seconds", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(Effect.flip(InMemory.mapPorts(mapRequest(1))), {
        startImmediately: true
      })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(
        (yield* Fiber.join(fiber)).message,
        "PortMapper.MapPorts failed: no answer within 10 s, the call was given up"
      )
    }).pipe(Effect.provideService(Driver, { ...echo, mapPorts: () => Effect.never }))
  )

  it.effect("are delivered when they succeed, and rolled back when they are interrupted", () =>
    Effect.gen(function* () {
      const exits: Array<string> = []
      const hold = yield* Deferred.make<void>()
      const driver = Driver.of({
        ...echo,
        mapPorts: (group) =>
          Effect.addFinalizer((exit) => Effect.sync(() => exits.push(exit._tag))).pipe(
            Effect.andThen(group.ports._tag === "Ephemeral" ? Deferred.await(hold) : Effect.void),
            Effect.as(grant(group))
          )
      })
      const map = (port: number) => Effect.provideService(InMemory.mapPorts(mapRequest(port)), Driver, driver)
      yield* map(80)
      const fiber = yield* Effect.forkChild(map(0), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      assert.deepStrictEqual(exits, ["Success", "Failure"])
    })
  )
})

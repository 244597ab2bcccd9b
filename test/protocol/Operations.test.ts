import { assert, describe, it } from "@effect/vitest"
import { Data, Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { listPortsResponse } from "../../src/protocol/Answers.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { type Body, call, kindOf, type Method, textBody, valueBody } from "../../src/protocol/Operations.ts"
import type { Group, PortBinding } from "../../src/protocol/PortBinding.ts"
import { RequestError } from "../../src/protocol/RequestError.ts"
import { listedMapping } from "../support/mappings.ts"

class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

const request = (fields: object = {}): string => {
  const req = {
    Proto: 6,
    BackendIP: "172.17.0.2",
    BackendPort: 80,
    FrontendIP: "",
    FrontendPort: 8080,
    FrontendPortEnd: 8080
  }
  return JSON.stringify({ Reqs: [{ ...req, ...fields }], Labels: null })
}

/** Grants every request for exact ports. */
const granted = (group: Group): ReadonlyArray<PortBinding> =>
  group.entries.map((entry) => ({
    entry,
    port: group.ports._tag === "Exact" ? group.ports.port : 40001,
    discarded: undefined,
    allowForwarding: true,
    nat: undefined
  }))

type Service = typeof Driver.Service
const driverOf = (methods: Partial<Service>): Service =>
  Driver.of({
    mapPorts: (group) => Effect.succeed(granted(group)),
    unmapPorts: () => Effect.void,
    ...methods
  })

const ask = (method: Method, body: Body, driver: Partial<Service> = {}) =>
  call(method, body).pipe(Effect.provideService(Driver, driverOf(driver)))

describe("Plugin.Activate", () => {
  it.effect("names what the plugin implements, whatever the body, and notifies the driver", () =>
    Effect.gen(function* () {
      let activated = 0
      const driver = { activated: Effect.sync(() => void activated++) }
      for (const body of [textBody(""), textBody("no JSON"), valueBody(undefined)]) {
        assert.deepStrictEqual(yield* ask("Plugin.Activate", body, driver), { Implements: ["PortMapper"] })
      }
      assert.strictEqual(activated, 3)
      assert.deepStrictEqual(yield* ask("Plugin.Activate", textBody("")), { Implements: ["PortMapper"] })
    })
  )
})

describe("PortMapper.MapPorts", () => {
  it.effect("reports that an empty body is empty, and why", () =>
    Effect.gen(function* () {
      for (const body of ["", "\n"]) {
        const error = yield* Effect.flip(ask("PortMapper.MapPorts", textBody(body)))
        assert.instanceOf(error, RequestError)
        assert.strictEqual(
          error.message,
          "bad request: the body of MapPorts is empty (unexpected end of JSON input): the connection broke during a " +
            "first attempt, and the Engine repeats the call without its body; this one changed nothing, try again"
        )
      }
    })
  )

  it.effect("reports a driver's RequestError as a bad request", () =>
    Effect.gen(function* () {
      const wrong = new RequestError({ issues: [{ path: "Labels", value: "{}", rule: "other labels" }] })
      const error = yield* Effect.flip(
        ask("PortMapper.MapPorts", textBody(request()), { mapPorts: () => Effect.fail(wrong) })
      )
      assert.strictEqual(kindOf(error), "request")
    })
  )
})

describe("PortMapper.ListPorts", () => {
  it.effect("returns the mappings of the owner that is asked for, or all", () =>
    Effect.gen(function* () {
      const listPorts = Effect.succeed([listedMapping()])
      const json = JSON.stringify(listPortsResponse([listedMapping()]))
      for (const body of [textBody("{}"), valueBody({}), valueBody({ OwnedBy: "engine" })])
        assert.strictEqual(JSON.stringify(yield* ask("PortMapper.ListPorts", body, { listPorts })), json)
      assert.deepStrictEqual(
        yield* ask("PortMapper.ListPorts", valueBody({ OwnedBy: "cli" }), { listPorts }),
        { Mappings: [] }
      )
    })
  )
})

describe("the timeout of a call", () => {
  it.effect.each(["PortMapper.MapPorts", "PortMapper.UnmapPorts"] as const)(
    "interrupts a driver that takes longer than 10 s over %s, and fails as a whole",
    (method) =>
      Effect.gen(function* () {
        let undone = false
        const undo = Effect.sync(() => {
          undone = true
        })
        const hangs = Effect.never.pipe(Effect.onInterrupt(() => undo))
        const body = textBody(method === "PortMapper.MapPorts" ? request() : "{}")
        const fiber = yield* Effect.forkChild(
          ask(method, body, { mapPorts: () => hangs, unmapPorts: () => hangs })
        )
        yield* TestClock.adjust("9999 millis")
        assert.isFalse(undone)
        yield* TestClock.adjust("1 millis")
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.isTrue(undone)
        assert.strictEqual(error.message, `${method} failed: no answer within 10 s, the call was given up`)
        assert.strictEqual(kindOf(error), "driver")
      })
  )
})

describe("a call that is interrupted", () => {
  const body = textBody(request())

  it.effect("interrupts the driver, and waits for its end", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const cleanUp = yield* Deferred.make<void>()
      const mapPorts = () =>
        Deferred.succeed(asked, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.await(cleanUp))
        )
      const caller = yield* Effect.forkChild(ask("PortMapper.MapPorts", body, { mapPorts }))
      yield* Deferred.await(asked)
      const interrupted = yield* Effect.forkChild(Fiber.interrupt(caller), { startImmediately: true })
      yield* Effect.yieldNow
      assert.strictEqual(interrupted.pollUnsafe(), undefined)
      yield* Deferred.succeed(cleanUp, undefined)
      yield* Fiber.join(interrupted)
      const exit = caller.pollUnsafe()
      assert.isTrue(exit !== undefined && Exit.hasInterrupts(exit))
    })
  )

  it.effect("interrupts the driver also where the interruption came before the driver started", () =>
    Effect.gen(function* () {
      let undone = false
      const caller = yield* Effect.forkChild(
        Effect.withFiber((self) => {
          const mapPorts = () =>
            Effect.sync(() => self.interruptUnsafe()).pipe(
              Effect.andThen(Effect.never),
              Effect.onInterrupt(() =>
                Effect.sync(() => {
                  undone = true
                })
              )
            )
          return ask("PortMapper.MapPorts", body, { mapPorts })
        })
      )
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(caller)))
      assert.isTrue(undone)
    })
  )

  it.effect("ends a driver past its timeout first, where the caller can't be interrupted", () =>
    Effect.gen(function* () {
      const mapPorts = () => Effect.uninterruptible(Effect.as(Effect.sleep("30 seconds"), []))
      const caller = yield* Effect.forkChild(
        Effect.uninterruptible(Effect.flip(ask("PortMapper.MapPorts", body, { mapPorts })))
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(caller.pollUnsafe(), undefined)
      yield* TestClock.adjust("20 seconds")
      const error = yield* Fiber.join(caller)
      assert.strictEqual(
        error.message,
        "PortMapper.MapPorts failed: no answer within 10 s, the call was given up"
      )
    })
  )
})

describe("the scope of a call", () => {
  /** Maps by adding to `held`, and rolls back where the answer could not be delivered. */
  const holding = (held: Set<number>): Partial<Service> => ({
    mapPorts: Effect.fnUntraced(function* (group) {
      const bindings = granted(group)
      for (const { port } of bindings) held.add(port)
      yield* Effect.addFinalizer((exit) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) for (const { port } of bindings) held.delete(port)
        })
      )
      return bindings
    })
  })
  const body = textBody(request())

  it.effect("keeps mappings when the answer is delivered", () =>
    Effect.gen(function* () {
      const held = new Set<number>()
      yield* Effect.scoped(ask("PortMapper.MapPorts", body, holding(held)))
      assert.deepStrictEqual(held, new Set([8080]))
    })
  )

  it.effect("rolls back mappings when the answer is not delivered", () =>
    Effect.gen(function* () {
      const held = new Set<number>()
      const delivery = yield* Scope.make()
      yield* ask("PortMapper.MapPorts", body, holding(held)).pipe(Scope.provide(delivery))
      assert.deepStrictEqual(held, new Set([8080]))
      yield* Scope.close(delivery, Exit.fail("the client is gone"))
      assert.deepStrictEqual(held, new Set())
    })
  )

  it.effect("rolls back mappings when the caller is interrupted before the answer", () =>
    Effect.gen(function* () {
      const held = new Set<number>()
      const mapped = yield* Deferred.make<void>()
      const fiber = yield* ask("PortMapper.MapPorts", body, holding(held)).pipe(
        Effect.tap(Deferred.succeed(mapped, undefined)),
        Effect.andThen(Effect.never),
        Effect.scoped,
        Effect.forkChild
      )
      yield* Deferred.await(mapped)
      assert.deepStrictEqual(held, new Set([8080]))
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(held, new Set())
    })
  )

  it.effect("is shared by several groups: a failing group rolls back the earlier ones", () =>
    Effect.gen(function* () {
      const held = new Set<number>()
      const { mapPorts } = holding(held)
      const refusing: Partial<Service> = {
        mapPorts: (group) =>
          group.ports._tag === "Exact" && group.ports.port === 8082
            ? Effect.fail(new Refused({ message: "no" }))
            : driverOf({ ...(mapPorts === undefined ? {} : { mapPorts }) }).mapPorts(group)
      }
      const groups = (...ports: ReadonlyArray<number>) =>
        textBody(
          `{"Groups":[${ports.map((port) => request({ FrontendPort: port, FrontendPortEnd: port })).join()}]}`
        )
      const error = yield* Effect.flip(
        Effect.scoped(ask("PortMapper.MapGroups", groups(8080, 8081, 8082, 8083), refusing))
      )
      assert.deepStrictEqual([error._tag, error.message], ["Refused", "Groups[2]: no"])
      assert.deepStrictEqual(held, new Set())
      yield* Effect.scoped(ask("PortMapper.MapGroups", groups(8080, 8081), refusing))
      assert.deepStrictEqual(held, new Set([8080, 8081]))
    })
  )
})

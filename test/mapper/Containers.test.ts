/** Mappings of an Engine go with their containers, whatever the order of events, and stay in doubt. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Result, type Scope } from "effect"
import { IpNetwork } from "effect/net"
import { TestClock } from "effect/testing"
import { Engine, EngineError } from "../../adapters/engine/Engine.ts"
import * as EngineBackends from "../../adapters/engine/EngineBackends.ts"
import { type Attribution, Backends } from "../../src/mapper/MapperContext.ts"
import { MappingStore, MemoryStore, StoreError } from "../../src/mapper/MappingStore.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { network } from "../engine/containers.ts"
import * as Memory from "../engine/MemoryEngine.ts"
import { MemoryEngine } from "../engine/MemoryEngine.ts"
import { group } from "../support/groups.ts"
import { type Life, makeLives } from "../support/lives.ts"

const bridge = network("bridge", { subnets: [Result.getOrThrow(IpNetwork.fromString("172.17.0.0/16"))] })
const docker0 = [{ name: bridge.bridge, address: addressUnsafe("172.17.0.1") }]

const lines: Array<string> = []
const logged = Logger.layer([Logger.make(({ message }) => void lines.push([message].flat().join(" ")))])
const withdrawals = () => lines.filter((line) => line.startsWith("withdrew"))

const test = (title: string, body: () => Effect.Effect<void, unknown, Engine | MemoryEngine | Scope.Scope>) =>
  it.effect(title, () => {
    lines.length = 0
    return Effect.provide(body(), Layer.merge(Memory.layer({ networks: [bridge] }), logged))
  })

/** A process of the plugin that sees the Engine's containers. */
const living = Effect.map(makeLives, ({ mapperLife, directory }) => ({
  directory,
  life: <A, E, R>(
    use: Effect.Effect<A, E, R>,
    backends: Layer.Layer<Backends, never, Engine> = EngineBackends.layer(() => docker0)
  ) =>
    mapperLife(
      Effect.scoped(
        Effect.gen(function* () {
          const seen = yield* Layer.build(backends)
          const driver = yield* Effect.provideContext(Layer.build(PortMapper.layer), seen)
          yield* looked
          return yield* Effect.provideContext(use, Context.merge(seen, driver))
        })
      )
    )
}))

/** Time for a look at the containers. */
const looked = TestClock.adjust("500 millis")

const map = (port: number, address: string, owner = "engine") =>
  Effect.scoped(
    Effect.provideService(
      Driver.use((driver) => driver.mapPorts(group(`${port}`, [`tcp 0.0.0.0 ${address}:80`]))),
      CurrentOwner,
      owner
    )
  )

const mapped = Driver.use((driver) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (all) =>
    all.map(({ frontendPort, backendIp }) => `${frontendPort} ${backendIp}`).sort()
  )
)

const containers = Driver.use((driver) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (all) => all.map(({ container }) => container))
)

const recorded = MappingStore.use((store) =>
  Effect.map(store.load, ({ mappings }) =>
    mappings.map(({ mapping }) => `${mapping.port} ${mapping.container?.replace(/0+$/, "")}`).sort()
  )
)

describe("a mapping of an Engine", () => {
  test("is recorded with its container once the answer is delivered, and not before", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const { life } = yield* living
      yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
      yield* life(
        Effect.gen(function* () {
          const written = yield* Deferred.make<void>()
          const call = yield* Effect.forkChild(
            Effect.scoped(
              Effect.andThen(
                Driver.use((driver) => driver.mapPorts(group("8080", ["tcp 0.0.0.0 172.17.0.2:80"]))),
                Deferred.await(written)
              )
            )
          )
          yield* looked
          assert.strictEqual(engine.listed(), 0)
          assert.deepStrictEqual(yield* recorded, ["8080 undefined"])
          yield* Deferred.succeed(written, undefined)
          yield* Fiber.join(call)
          yield* looked
          assert.deepStrictEqual(yield* recorded, ["8080 memory 1"])
          assert.deepStrictEqual(yield* containers, ["web/100000000000"])
          // Until the Engine has shown its containers, a start knows their ids alone.
          yield* engine.away
        })
      )
      yield* life(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* containers, ["100000000000"])
        })
      )
    }))

  test("is withdrawn when the Engine removed its container without an unmap, with the reason", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const { life } = yield* living
      yield* life(
        Effect.gen(function* () {
          yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
          yield* engine.run({ name: "db", networks: { bridge: ["172.17.0.3"] } })
          yield* map(8080, "172.17.0.2")
          yield* map(8081, "172.17.0.2")
          yield* map(8082, "172.17.0.3")
          yield* map(8083, "172.17.0.2", "cli")
          yield* looked
          yield* engine.remove("web")
          yield* engine.stop("db")
          yield* looked
          assert.deepStrictEqual(yield* mapped, ["8083 172.17.0.2"])
          assert.deepStrictEqual(withdrawals(), [
            "withdrew 0.0.0.0:8080/tcp to 172.17.0.2:80, 0.0.0.0:8081/tcp to 172.17.0.2:80: container 100000000000 was removed",
            "withdrew 0.0.0.0:8082/tcp to 172.17.0.3:80: container db (200000000000) ended"
          ])
        })
      )
    }))

  test("is withdrawn at a start, where another container has the address by now", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const { life } = yield* living
      yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
      yield* life(Effect.andThen(map(8080, "172.17.0.2"), looked))
      yield* engine.remove("web")
      yield* engine.run({ name: "other", networks: { bridge: ["172.17.0.2"] } })
      yield* life(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* mapped, [])
          yield* map(8080, "172.17.0.2")
          yield* looked
          assert.deepStrictEqual(yield* recorded, ["8080 memory 2"])
        })
      )
    }))

  test("gives way to a call that comes before the first look", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const { life } = yield* living
      yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
      yield* life(Effect.andThen(map(8080, "172.17.0.2"), looked))
      yield* engine.remove("web")
      yield* engine.run({ name: "other", networks: { bridge: ["172.17.0.2"] } })
      yield* engine.run({ name: "third", networks: { bridge: ["172.17.0.3"] } })
      yield* TestClock.adjust("31 seconds")
      const unseeing = Layer.effect(
        Backends,
        Effect.map(Layer.build(EngineBackends.layer(() => docker0)), (built) => ({
          stateOf: Context.get(built, Backends).stateOf
        }))
      )
      yield* life(
        Effect.gen(function* () {
          yield* map(8080, "172.17.0.3")
          assert.deepStrictEqual(yield* mapped, ["8080 172.17.0.3"])
        }),
        unseeing
      )
    }))

  test("of an earlier record gets its container, unless that was created later", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const { life } = yield* living
      yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
      yield* life(Effect.andThen(map(8080, "172.17.0.2"), map(8081, "172.17.0.3")), Backends.layerUnknown)
      yield* TestClock.adjust("1 second")
      yield* engine.run({ name: "late", networks: { bridge: ["172.17.0.3"] } })
      yield* life(
        Effect.map(recorded, (all) => assert.deepStrictEqual(all, ["8080 memory 1", "8081 undefined"]))
      )
    }))

  for (const [what, happens] of [
    ["the Engine can't be reached", (engine) => Effect.andThen(engine.remove("web"), engine.away)],
    [
      "another Engine answers",
      (engine) =>
        Effect.andThen(
          engine.remove("web"),
          Effect.sync(() => engine.become("another"))
        )
    ],
    [
      "an Engine without an id answers",
      (engine) =>
        Effect.andThen(
          engine.remove("web"),
          Effect.sync(() => engine.become(""))
        )
    ],
    [
      "the container is being restarted",
      (engine) =>
        engine.alter("web", {
          running: false,
          attachments: [{ network: bridge, gatewayPriority: 0, gateways: 0, v4: undefined, v6: undefined }]
        })
    ],
    [
      "its next address isn't known yet",
      (engine) =>
        engine.alter("web", {
          attachments: [{ network: bridge, gatewayPriority: 0, gateways: 0, v4: undefined, v6: undefined }]
        })
    ]
  ] satisfies ReadonlyArray<readonly [string, (engine: MemoryEngine["Service"]) => Effect.Effect<void>]>)
    test(`stays where ${what}`, () =>
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        const { life } = yield* living
        yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
        yield* life(
          Effect.gen(function* () {
            yield* map(8080, "172.17.0.2")
            yield* looked
            assert.deepStrictEqual(yield* recorded, ["8080 memory 1"])
            yield* happens(engine)
            yield* TestClock.adjust("2 minutes")
            assert.deepStrictEqual(yield* mapped, ["8080 172.17.0.2"])
          })
        )
        yield* life(Effect.map(mapped, (all) => assert.deepStrictEqual(all, ["8080 172.17.0.2"])))
      }))

  for (const [what, settled] of [
    [
      "the container is started while the plugin looks",
      (engine) => engine.start("web", { bridge: ["172.17.0.2"] })
    ],
    [
      "a change to the container does not end",
      () => Effect.fail(new EngineError({ where: "memory", reason: "TimedOut", detail: "no answer" }))
    ]
  ] satisfies ReadonlyArray<
    readonly [string, (engine: MemoryEngine["Service"]) => Effect.Effect<void, EngineError>]
  >)
    test(`stays where ${what}`, () =>
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        const { life } = yield* living
        const starting = Layer.effect(
          Engine,
          Engine.useSync((seen) => ({ ...seen, settled: () => settled(engine) }))
        )
        yield* life(
          Effect.gen(function* () {
            yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
            yield* map(8080, "172.17.0.2")
            yield* looked
            yield* engine.stop("web")
            yield* looked
            assert.deepStrictEqual(yield* mapped, ["8080 172.17.0.2"])
          }),
          Layer.provide(
            EngineBackends.layer(() => docker0),
            starting
          )
        )
      }))

  test("stays where a call asked for it while the plugin looked, and belongs to the container that asked", () =>
    Effect.gen(function* () {
      const { life } = yield* living
      const seen = yield* Deferred.make<ReadonlyArray<Attribution>>()
      let looks = 0
      const slow = Layer.succeed(Backends, {
        stateOf: () => Effect.succeed("unknown" as const),
        containers: {
          changed: Effect.never,
          textOf: (container) => container,
          attribute: () =>
            looks++ === 0
              ? Effect.succeed([{ _tag: "BelongsTo" as const, container: "a" }])
              : looks === 2
                ? Deferred.await(seen)
                : Effect.succeed([{ _tag: "BelongsTo" as const, container: "b" }])
        }
      })
      yield* life(
        Effect.gen(function* () {
          yield* map(8080, "172.17.0.2")
          yield* looked
          assert.deepStrictEqual(yield* recorded, ["8080 a"])
          yield* map(8080, "172.17.0.2")
          assert.deepStrictEqual(yield* recorded, ["8080 undefined"])
          yield* looked
          yield* map(8080, "172.17.0.2")
          yield* Deferred.succeed(seen, [{ _tag: "Gone", id: "a", why: "container a was removed" }])
          assert.deepStrictEqual(yield* mapped, ["8080 172.17.0.2"])
          yield* looked
          assert.deepStrictEqual(yield* recorded, ["8080 b"])
        }),
        slow
      )
    }))

  it.effect("is recorded with its container later, where the store refused", () =>
    Effect.gen(function* () {
      const store = yield* MemoryStore
      const recorded = () => store.records().map(({ mapping: { container } }) => container)
      yield* map(8080, "172.17.0.2")
      store.refuse(new StoreError({ reason: "Full", operation: "recording", detail: "no space" }))
      yield* looked
      assert.deepStrictEqual(recorded(), [undefined])
      store.refuse(undefined)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(recorded(), ["a"])
    }).pipe(
      Effect.provide(
        PortMapper.layerMemory(
          {},
          Layer.succeed(Backends, {
            stateOf: () => Effect.succeed("unknown" as const),
            containers: {
              changed: Effect.never,
              textOf: (container) => container,
              attribute: () => Effect.succeed([{ _tag: "BelongsTo" as const, container: "a" }])
            }
          })
        )
      )
    )
  )

  for (const order of permutations(["remove", "reuse", "restart", "look"] as const))
    test(`goes, and the next container's stays: ${order.join(", ")}`, () =>
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        const { life } = yield* living
        yield* engine.run({ name: "web", networks: { bridge: ["172.17.0.2"] } })
        const steps = {
          // No unmap comes.
          remove: engine.remove("web"),
          reuse: Effect.andThen(
            engine.run({ name: "next", networks: { bridge: ["172.17.0.3"] } }),
            map(8081, "172.17.0.3")
          ),
          look: looked,
          restart: Effect.void
        }
        const at = order.indexOf("restart")
        const run = (some: ReadonlyArray<keyof typeof steps>): Effect.Effect<void, unknown, Life> =>
          Effect.forEach(some, (step) => steps[step], { discard: true })
        yield* life(Effect.andThen(map(8080, "172.17.0.2"), Effect.andThen(looked, run(order.slice(0, at)))))
        yield* life(
          Effect.gen(function* () {
            yield* run(order.slice(at + 1))
            yield* looked
            assert.deepStrictEqual(yield* mapped, ["8081 172.17.0.3"])
            assert.deepStrictEqual(yield* recorded, ["8081 memory 2"])
          })
        )
        assert.lengthOf(withdrawals(), 1)
      }))
})

function permutations<A>(all: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> {
  return all.length === 0
    ? [[]]
    : all.flatMap((one) => permutations(all.filter((other) => other !== one)).map((rest) => [one, ...rest]))
}

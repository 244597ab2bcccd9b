/** Containers that sleep, on an Engine in memory, in every order of events. */
import { assert, describe } from "@effect/vitest"
import { type Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import { Engine, EngineError } from "../../adapters/engine/Engine.ts"
import { startWatch } from "../../adapters/engine/Watch.ts"
import { WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { endpointText } from "../../src/protocol/PortBinding.ts"
import { MemoryRelay } from "../../src/relay/Relay.ts"
import { MemoryEngine } from "./MemoryEngine.ts"
import { lines, test as watchTest } from "./watchTest.ts"

const sleeping = (more: Readonly<Record<string, string>> = {}) => ({
  "portmapper.publish": "0.0.0.0:8080:80",
  "portmapper.wake": "on",
  "portmapper.sleep": "10m",
  ...more
})

/** The mappings as `BACKEND STATE`, and the reason if there is one. */
const states = Effect.flatMap(Driver, ({ listPorts }) =>
  Effect.map(listPorts ?? Effect.succeed([]), (mappings) =>
    mappings.map(({ backendIp, state, reason }) => {
      const to = backendIp.startsWith("100::") ? "nowhere" : backendIp
      return `${to} ${state}${reason === undefined ? "" : `: ${reason}`}`
    })
  )
)

/** Ports of containers that take connections, as `172.17.0.2:80`; all do unless some are named here. */
const closed = new Set<string>()

const test: typeof watchTest = (title, effect) =>
  watchTest(title, () => {
    closed.clear()
    return effect()
  })

/** Time for the watch to see an event and act on it. */
const settle = TestClock.adjust("200 millis")

const start = Effect.tap(
  startWatch({
    trustImageLabels: false,
    accepts: (endpoint) => Effect.sync(() => !closed.has(endpointText(endpoint)))
  }),
  settle
)

/** The watch and its driver, for a part of a test: a process that is killed at its end. */
const during = <A, E, R>(body: Effect.Effect<A, E, R | Driver>) =>
  Effect.scoped(Effect.flatMap(start, (driver) => Effect.provideService(body, Driver, driver)))

/** A client connects to the published port. Returns whether it was served at once. */
const connect = (port = 8080) =>
  Effect.tap(
    Effect.map(MemoryRelay, (relay) =>
      relay
        .connect({ protocol: "tcp", host: addressUnsafe("0.0.0.0"), port }, addressUnsafe("127.0.0.1"))
        .isOpen()
    ),
    settle
  )

/** What was logged of starts and stops. */
const steps = () => lines.filter((line) => /: (start|stop)/.test(line))

const changes = Effect.map(MemoryEngine, (engine) => engine.changes())

describe("a container that was created and never started", () => {
  test("is started by the first client, once for all, and then published", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.create({ name: "web", labels: sleeping() })
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(yield* states, ["nowhere asleep"])
        assert.lengthOf((yield* MemoryHost).open(), 1)
        closed.add("172.17.0.99:80")
        for (let client = 0; client < 5; client++) assert.isFalse(yield* connect())
        assert.deepStrictEqual(yield* changes, ["start web"])
        assert.deepStrictEqual(yield* states, ["nowhere waking"])
        closed.clear()
        yield* settle
        assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        assert.isTrue(yield* connect())
        assert.deepStrictEqual(yield* changes, ["start web"])
      })
    ))

  test("is not started while it is drained", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.create({ name: "web", labels: sleeping() })
        yield* settle
        const drain = (drained: boolean) =>
          Driver.use(
            (driver) => driver.drain?.({ backend: "web", ports: [], drained }) ?? Effect.die("no drain")
          )
        yield* drain(true)
        yield* settle
        assert.isFalse(yield* connect())
        assert.deepStrictEqual([yield* changes, yield* states], [[], ["nowhere drained"]])
        yield* drain(false)
        yield* settle
        yield* connect()
        assert.deepStrictEqual([yield* changes, yield* states], [["start web"], ["172.17.0.99 live"]])
      })
    ))

  test("is left alone without the label, or where its image asks for it", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.image("eager", { "portmapper.wake": "on" })
        yield* engine.create({ name: "plain", labels: { "portmapper.publish": "8081:80" } })
        yield* engine.create({
          name: "eager",
          image: "eager",
          labels: { "portmapper.publish": "8082:80", "portmapper.wake": "on" }
        })
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(yield* states, [])
      })
    ))

  test("is reset and tried again after growing pauses where it does not start, with the reason", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.create({ name: "web", labels: sleeping() })
        engine.onChange("web", Effect.fail(refusal))
        yield* settle
        assert.isFalse(yield* connect())
        assert.deepStrictEqual(yield* states, [`nowhere asleep: ${refusal.message}`])
        assert.deepStrictEqual(steps(), ["web: starting, since a client waits"])
        assert.include(lines, `web: ${refusal.message}; a client may wake it in 1 s`)
        // Who comes now is refused, and wakes nobody.
        yield* connect()
        assert.deepStrictEqual(yield* changes, ["start web"])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* changes, ["start web"])
        yield* connect()
        assert.deepStrictEqual(yield* changes, ["start web", "start web"])
        assert.include(lines, `web: ${refusal.message}; a client may wake it in 2 s`)
        engine.onChange("web", Effect.void)
        yield* TestClock.adjust("2 seconds")
        yield* connect()
        assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
      })
    ))

  test("is tried again where it ends as soon as it runs, also by the next process", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* during(
        Effect.gen(function* () {
          yield* engine.create({ name: "web", labels: sleeping() })
          closed.add("172.17.0.99:80")
          yield* settle
          yield* connect()
          yield* engine.stop("web")
          yield* settle
          assert.deepStrictEqual(yield* states, ["nowhere asleep: it ended while it was woken"])
        })
      )
      closed.clear()
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* states, ["nowhere asleep"])
          yield* connect()
          assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        })
      )
    }))

  test("is waited for longer than its clients wait", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.create({ name: "web", labels: sleeping({ "portmapper.wake-timeout": "5s" }) })
        closed.add("172.17.0.99:80")
        yield* settle
        yield* connect()
        yield* TestClock.adjust("6 seconds")
        const why = "it runs, and port 80 takes no connections 5 s after its start"
        assert.deepStrictEqual(yield* states, [`nowhere waking: ${why}`])
        assert.lengthOf(
          lines.filter((line) => line === `web: ${why}`),
          1
        )
        closed.clear()
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        assert.deepStrictEqual(yield* changes, ["start web"])
      })
    ))

  test("is released once it is gone, and never started by somebody who waited for it", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.create({ name: "web", labels: sleeping() })
        yield* settle
        yield* engine.remove("web")
        yield* connect()
        assert.deepStrictEqual(yield* states, [])
        assert.deepStrictEqual((yield* MemoryHost).open(), [])
        assert.deepStrictEqual(yield* changes, [])
      })
    ))

  test("is left to who starts it", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.create({ name: "web", labels: sleeping() })
        yield* settle
        yield* engine.start("web")
        yield* settle
        assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        yield* engine.stopByHand("web")
        yield* settle
        assert.deepStrictEqual(yield* states, [])
        assert.deepStrictEqual(yield* changes, [])
      })
    ))
})

describe("an unused container", () => {
  const running = Effect.gen(function* () {
    const engine = yield* MemoryEngine
    yield* engine.run({ name: "web", labels: sleeping(), networks: { bridge: ["172.17.0.99"] } })
    yield* settle
  })
  const slept = Effect.andThen(running, TestClock.adjust("11 minutes"))

  test("is stopped after its time, keeps its port, and is started again by the next client", () =>
    during(
      Effect.gen(function* () {
        yield* running
        assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        const [held] = (yield* MemoryHost).open()
        yield* TestClock.adjust("9 minutes")
        assert.deepStrictEqual(yield* changes, [])
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(yield* changes, ["stop web"])
        assert.deepStrictEqual(yield* states, ["nowhere asleep"])
        yield* TestClock.adjust("1 hour")
        yield* connect()
        assert.deepStrictEqual(steps(), [
          "web: stopping, since it has been unused for 10m",
          "web: stopped",
          "web: starting, since a client waits",
          "web: started"
        ])
        assert.deepStrictEqual(yield* changes, ["stop web", "start web"])
        assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        assert.deepStrictEqual((yield* MemoryHost).open()[0]?.socket, held?.socket)
        yield* TestClock.adjust("11 minutes")
        assert.deepStrictEqual(yield* changes, ["stop web", "start web", "stop web"])
      })
    ))

  test("is not stopped while a connection is open, of the kernel's or of the relay's", () =>
    during(
      Effect.gen(function* () {
        yield* running
        const { keepOpen } = yield* MemoryConntrack
        keepOpen("172.17.0.99:80/tcp", 1)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* changes, [])
        keepOpen("172.17.0.99:80/tcp", 0)
        yield* connect()
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* changes, [])
      })
    ))

  test("is not stopped while it is paused, nor at once when it goes on", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* running
        yield* TestClock.adjust("9 minutes")
        yield* engine.alter("web", { unready: "paused" }, "pause")
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* changes, [])
        yield* engine.alter("web", { unready: undefined }, "unpause")
        yield* TestClock.adjust("9 minutes")
        assert.deepStrictEqual(yield* changes, [])
        yield* TestClock.adjust("4 minutes")
        assert.deepStrictEqual(yield* changes, ["stop web"])
      })
    ))

  test("is stopped for good where a person stops it first, or ends by itself", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        for (const end of [engine.stopByHand, engine.stop]) {
          yield* running
          yield* end("web")
          yield* settle
          assert.deepStrictEqual(yield* states, [])
          yield* connect()
          assert.deepStrictEqual(yield* changes, [])
          yield* engine.remove("web")
        }
      })
    ))

  test("goes on where it can't be stopped, with the reason, and is stopped later", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        engine.onChange("web", Effect.fail(refusal))
        yield* slept
        assert.deepStrictEqual(yield* states, [`172.17.0.99 live: ${refusal.message}`])
        assert.deepStrictEqual(steps(), ["web: stopping, since it has been unused for 10m"])
        yield* engine.stopByHand("web")
        yield* settle
        assert.deepStrictEqual(yield* states, [])
        yield* engine.start("web")
        engine.onChange("web", Effect.void)
        yield* TestClock.adjust("11 minutes")
        assert.deepStrictEqual(yield* states, ["nowhere asleep"])
      })
    ))

  test("is woken by a client that came while it was stopped", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        engine.onChange("web", Effect.sleep("5 seconds"))
        yield* running
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(yield* states, ["nowhere asleep"])
        assert.deepStrictEqual(yield* changes, ["stop web"])
        assert.isFalse(yield* connect())
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(yield* changes, ["stop web", "start web"])
        yield* TestClock.adjust("6 seconds")
        assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
      })
    ))

  test("is stopped once for a client to wake it, also where the Engine answers while the watch reconciles", () =>
    Effect.gen(function* () {
      const engine = yield* Engine
      const { onChange, alter } = yield* MemoryEngine
      let listingTakes: Duration.Input = 0
      const slow = Engine.of({
        ...engine,
        containers: Effect.tap(engine.containers, () => Effect.sleep(listingTakes))
      })
      yield* during(
        Effect.gen(function* () {
          onChange("web", Effect.sleep("5 seconds"))
          yield* running
          yield* TestClock.adjust("10 minutes")
          assert.isFalse(yield* connect())
          listingTakes = "10 seconds"
          yield* alter("web", {})
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* changes, ["stop web", "start web"])
          assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        })
      ).pipe(Effect.provideService(Engine, slow))
    }))

  test("stays asleep through restarts, unless somebody started and stopped it meanwhile", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* during(slept)
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* states, ["nowhere asleep"])
          yield* engine.away
          yield* TestClock.adjust("1 minute")
          yield* connect()
          assert.match(
            (yield* states).join(),
            /^nowhere asleep: the Engine at memory: no process is listening/
          )
          yield* engine.back
          yield* TestClock.adjust("1 minute")
          yield* connect()
          assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
          yield* TestClock.adjust("11 minutes")
          assert.deepStrictEqual(yield* states, ["nowhere asleep"])
        })
      )
      yield* engine.start("web")
      yield* engine.stopByHand("web")
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* states, [])
          assert.deepStrictEqual((yield* (yield* WatchRecord).load).slept, new Map())
        })
      )
    }))

  test("is stopped by the next process, where one was killed in between", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      engine.onChange("web", Effect.never)
      yield* during(
        Effect.andThen(
          slept,
          Effect.map(changes, (all) => assert.deepStrictEqual(all, ["stop web"]))
        )
      )
      engine.onChange("web", Effect.void)
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* states, ["nowhere asleep"])
          assert.deepStrictEqual(yield* changes, ["stop web", "stop web"])
          yield* connect()
          assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
        })
      )
    }))

  test("is not stopped by the next process with a connection open, nor taken for asleep after that", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      engine.onChange("web", Effect.never)
      yield* during(slept)
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* changes, ["stop web", "stop web"])
        })
      )
      const { keepOpen } = yield* MemoryConntrack
      keepOpen("172.17.0.99:80/tcp", 1)
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
          assert.deepStrictEqual(yield* changes, ["stop web", "stop web"])
          assert.deepStrictEqual((yield* (yield* WatchRecord).load).slept, new Map())
          yield* engine.stop("web")
          yield* settle
          assert.deepStrictEqual(yield* states, [])
        })
      )
    }))

  test("is woken by a client that came before it was found, as after a restart", () =>
    Effect.gen(function* () {
      yield* during(slept)
      const relay = yield* MemoryRelay
      relay.connect(
        { protocol: "tcp", host: addressUnsafe("0.0.0.0"), port: 8080 },
        addressUnsafe("127.0.0.1")
      )
      yield* during(
        Effect.andThen(
          settle,
          Effect.map(states, (all) => assert.deepStrictEqual(all, ["172.17.0.99 live"]))
        )
      )
    }))

  test("is asleep where the process before us stopped it amid a takeover", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* Engine
        const record = yield* WatchRecord
        yield* running
        const [{ id } = { id: "" }] = yield* engine.containers
        const run = (yield* engine.runOf(id)) ?? ""
        yield* record.save({ ...(yield* record.load), slept: new Map([[id, run]]) })
        yield* engine.stop(id)
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(yield* states, ["nowhere asleep"])
      })
    ))

  test("stays asleep while its image can't be inspected for a while", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* during(slept)
      yield* engine.image("image", {}, "unreadable")
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* states, [])
          yield* engine.image("image", {})
          yield* TestClock.adjust("31 seconds")
          assert.deepStrictEqual(yield* states, ["nowhere asleep"])
        })
      )
    }))

  test("is started by a client that came before the next process knew the containers", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.create({ name: "web", labels: sleeping() })
      yield* during(settle)
      yield* engine.away
      yield* during(
        Effect.gen(function* () {
          assert.isFalse(yield* connect())
          yield* engine.back
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual([yield* changes, yield* states], [["start web"], ["172.17.0.99 live"]])
        })
      )
    }))

  test("is found again by the next process while it wakes, and not started twice", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* during(
        Effect.gen(function* () {
          yield* slept
          closed.add("172.17.0.99:80")
          yield* connect()
          assert.deepStrictEqual(yield* states, ["nowhere waking"])
        })
      )
      yield* during(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* states, ["nowhere waking"])
          yield* connect()
          closed.clear()
          yield* settle
          assert.deepStrictEqual(yield* states, ["172.17.0.99 live"])
          assert.deepStrictEqual(engine.changes(), ["stop web", "start web"])
        })
      )
    }))
})

describe("the containers of a service that sleep", () => {
  const replica = (name: string, count: string) => ({
    name,
    labels: sleeping({
      "portmapper.share": "web",
      "com.docker.compose.project": "shop",
      "portmapper.wake-count": count
    })
  })

  test("share the port, and as many are started as the label says", () =>
    during(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        for (const name of ["web-1", "web-2", "web-3"]) yield* engine.create(replica(name, "2"))
        yield* settle
        assert.deepStrictEqual(yield* states, ["nowhere asleep", "nowhere asleep", "nowhere asleep"])
        assert.isFalse(yield* connect())
        assert.deepStrictEqual(yield* changes, ["start web-1", "start web-2"])
      })
    ))

  for (const unready of ["paused", "unhealthy"] as const)
    test(`take each other's place where one is ${unready}`, () =>
      during(
        Effect.gen(function* () {
          const engine = yield* MemoryEngine
          for (const name of ["web-1", "web-2"]) yield* engine.create(replica(name, "1"))
          yield* settle
          yield* connect()
          yield* settle
          assert.deepStrictEqual((yield* states).toSorted(), ["172.17.0.99 live", "nowhere asleep"])
          // No client that waited then may still wait.
          yield* TestClock.adjust("31 seconds")
          yield* engine.alter("web-1", { unready }, "pause")
          yield* settle
          assert.deepStrictEqual(yield* changes, ["start web-1"])
          yield* connect()
          assert.deepStrictEqual(yield* changes, ["start web-1", "start web-2"])
        })
      ))
})

const refusal = new EngineError({ where: "memory", reason: "Refused", detail: "no such file: /serve" })

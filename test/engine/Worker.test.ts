import { assert, describe } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryInterfaces } from "../../src/ports/InterfaceAddresses.ts"
import { Driver, ListedOwner } from "../../src/protocol/Driver.ts"
import { group } from "../support/groups.ts"
import { MemoryEngine } from "./MemoryEngine.ts"
import {
  addresses,
  during,
  follow,
  followInterface,
  lines,
  listed,
  publish,
  rows,
  settle,
  start,
  test,
  unmapping
} from "./watchTest.ts"

describe("a watch", () => {
  test("unmaps what has become undesired since it last ran", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const base = yield* Driver
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      yield* during(() => Effect.void)
      assert.deepStrictEqual(yield* listed(base), ["0.0.0.0:8080 -> 172.17.0.2:80 live watch"])
      yield* Effect.scoped(base.mapPorts(group("9999", ["tcp 0.0.0.0 172.17.0.2:80"])))
      yield* engine.remove("web")
      yield* start()
      assert.deepStrictEqual(yield* listed(base), ["0.0.0.0:9999 -> 172.17.0.2:80 live engine"])
    }))

  test("reconciles once a lost Engine is back, and logs the loss once", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      let connections = 0
      const driver = yield* start({ onConnected: Effect.sync(() => void connections++) })
      yield* engine.away
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(connections, 1)
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8080 -> 172.17.0.2:80 live watch"])
      yield* engine.stop("web")
      yield* engine.run({ name: "db", labels: publish("5432:5432") })
      yield* engine.back
      yield* TestClock.adjust("15 seconds")
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:5432 -> 172.17.0.3:5432 live watch"])
      assert.lengthOf(
        lines.filter((line) => line.includes("retrying")),
        1
      )
      assert.strictEqual(connections, 2)
    }))

  test("waits for an Engine that is not there yet", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      yield* engine.away
      const driver = yield* start()
      assert.deepStrictEqual(yield* listed(driver), [])
      yield* engine.back
      yield* TestClock.adjust("15 seconds")
      assert.lengthOf(yield* listed(driver), 1)
    }))

  test("retries with growing delays while the driver fails, and begins anew after a success", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const base = yield* Driver
      const tried: Array<number> = []
      const failing = Driver.of({
        ...base,
        listPorts: Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          tried.push(now)
          if (now < 61_000 || now === 91_000)
            return yield* Effect.fail({ _tag: "Broken", message: "the disk is full" })
          return yield* base.listPorts ?? Effect.succeed([])
        })
      })
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      yield* Effect.provideService(start(), Driver, failing)
      yield* TestClock.adjust("100 seconds")
      const afterwards = [91_000, 92_000]
      assert.deepStrictEqual(
        [...new Set(tried)],
        [0, 1000, 3000, 7000, 15_000, 31_000, 61_000, ...afterwards]
      )
      assert.include(lines, "reconciling the containers: the disk is full")
      assert.deepStrictEqual(yield* listed(base), ["0.0.0.0:8080 -> 172.17.0.2:80 live watch"])
    }))

  test("maps again what vanished without its doing", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const base = yield* Driver
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      const asked: Array<string | undefined> = []
      const counting = Driver.of({
        ...base,
        listPorts: Effect.gen(function* () {
          asked.push(yield* ListedOwner)
          return yield* base.listPorts ?? Effect.succeed([])
        })
      })
      yield* Effect.provideService(start(), Driver, counting)
      yield* base.unmapPorts(unmapping(8080))
      yield* TestClock.adjust("31 seconds")
      assert.lengthOf(yield* listed(base), 1)
      // Never the mappings of all owners, whose counters would be read each time.
      assert.deepStrictEqual([...new Set(asked)], ["watch", "cli"])
    }))

  test("follows interfaces while the Engine is away, and leaves all that leads to containers", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const interfaces = yield* MemoryInterfaces
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      yield* engine.run({ name: "typo", labels: publish("80:http") })
      const driver = yield* start()
      yield* engine.run({ name: "user" })
      yield* follow(driver, "user", "0.0.0.0:8081:80")
      yield* followInterface(driver, "eth0:9090:90")
      yield* engine.away
      yield* interfaces.set("eth0", addresses("192.0.2.2"))
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [
        "0.0.0.0:8080 -> 172.17.0.2 live",
        "0.0.0.0:8081 -> 172.17.0.4 live",
        "192.0.2.2:9090 -> 172.17.0.2 live",
        ':0 ->  container port "http": expected PORT or FIRST-LAST',
        ":::8080 -> 172.17.0.2 live"
      ])
    }))
})

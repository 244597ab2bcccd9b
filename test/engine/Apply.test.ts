import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { MemoryEngine } from "./MemoryEngine.ts"
import {
  during,
  errors,
  follow,
  lines,
  listed,
  publish,
  settle,
  start,
  test,
  unmapping
} from "./watchTest.ts"

describe("what a watch maps", () => {
  test("maps exact ports before any range picks one, whichever container or client asked for them", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "db" })
      yield* during((driver) => follow(driver, "db", "7001:80"))
      const base = yield* Driver
      yield* base.unmapPorts(unmapping(7001))
      yield* engine.run({ name: "web", labels: publish("7000-7010:80,7000-7010:81") })
      const driver = yield* start()
      assert.deepStrictEqual(yield* listed(driver), [
        "0.0.0.0:7000 -> 172.17.0.3:80 live watch",
        "0.0.0.0:7001 -> 172.17.0.2:80 live cli",
        "0.0.0.0:7002 -> 172.17.0.3:81 live watch"
      ])
    }))

  test("maps one by one what takes too long together", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const base = yield* Driver
      yield* engine.run({ name: "web", labels: publish("8080:80,8081:81") })
      let undone = 0
      const slow = Driver.of({
        ...base,
        mapGroups: (groups) =>
          Effect.andThen(base.mapGroups?.(groups) ?? Effect.die("not offered"), Effect.never).pipe(
            Effect.onInterrupt(() => Effect.sync(() => void undone++))
          )
      })
      const driver = yield* Effect.provideService(start(), Driver, slow)
      assert.deepStrictEqual(
        lines.filter((line) => line.includes("published")),
        []
      )
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.strictEqual(undone, 1)
      assert.deepStrictEqual(yield* listed(driver), [
        "0.0.0.0:8080 -> 172.17.0.2:80 live watch",
        "0.0.0.0:8081 -> 172.17.0.2:81 live watch"
      ])
      yield* engine.remove("web")
      yield* settle
      assert.deepStrictEqual((yield* MemoryHost).open(), [])
    }))

  test("publishes the others where the Engine can't inspect one image, or the driver breaks on one port", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const base = yield* Driver
      yield* engine.image("broken", publish("22:22"), "unreadable")
      yield* engine.run({ name: "odd", image: "broken", labels: publish("2200:22") })
      yield* engine.run({ name: "worse", labels: publish("8079:80") })
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      const breaking = Driver.of({
        ...base,
        mapPorts: (group) =>
          group.ports._tag === "Exact" && group.ports.port === 8079
            ? Effect.die(new Error("of all things"))
            : base.mapPorts(group),
        mapGroups: () => Effect.die(new Error("as with one of them"))
      })
      const driver = yield* Effect.provideService(start(), Driver, breaking)
      const live = ["0.0.0.0:8080 -> 172.17.0.4:80 live watch"]
      assert.deepStrictEqual(
        (yield* listed(driver)).filter((line) => line.includes(" live ")),
        live
      )
      assert.deepStrictEqual(yield* errors(driver), ["worse: internal error: Error: of all things"])
      assert.include(
        lines,
        "odd: portmapper.publish=2200:22 is ignored: the Engine does not know its image, so its labels may be the image's; --trust-image-labels publishes it"
      )
      yield* engine.image("broken", {})
      yield* engine.rename("odd", "even")
      yield* settle
      assert.include(yield* listed(driver), "0.0.0.0:2200 -> 172.17.0.2:22 live watch")
    }))
})

import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { applyDifference } from "../../adapters/engine/Apply.ts"
import type { DesiredGroup } from "../../adapters/engine/Desired.ts"
import { WatchState } from "../../adapters/engine/WatchState.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { container, desired } from "./containers.ts"
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

describe("a difference", () => {
  const newState = () => new WatchState({ follows: [], granted: new Map(), slept: new Map() })
  const groups = (publishes: string, name = "web", idle?: string) =>
    desired(container(name), publish(publishes)).groups.map((each) => ({
      ...each,
      group: {
        ...each.group,
        labels:
          idle === undefined ? each.group.labels : new Map([...each.group.labels, ["portmapper.idle", idle]])
      }
    }))
  const toMap = (all: ReadonlyArray<DesiredGroup>) =>
    all.map((each) => ({ desired: each, tries: [each.group.ports] }))
  const nothing = { release: [], map: [], after: [] }

  /** Maps these, and returns what to release of them. */
  const mapped = Effect.fnUntraced(function* (state: WatchState, all: ReadonlyArray<DesiredGroup>) {
    const { problems } = yield* applyDifference(state, { ...nothing, map: toMap(all) })
    assert.deepStrictEqual(problems, [])
    return [...state.observed].map(([key, { bindings }]) => ({ key, bindings }))
  })

  test("is logged by container, and by why a port gets no traffic", () =>
    Effect.gen(function* () {
      const state = newState()
      const release = yield* mapped(state, [
        ...groups("0.0.0.0:8080-8081:80-81"),
        ...groups("0.0.0.0:8082:80", "db"),
        ...groups("0.0.0.0:8083:80", "sleepy", "asleep")
      ])
      assert.lengthOf(release, 4)
      assert.deepStrictEqual(yield* applyDifference(state, { ...nothing, release }), {
        problems: [],
        released: true
      })
      assert.strictEqual(state.observed.size, 0)
      assert.deepStrictEqual(lines, [
        "web: 2 ports published",
        "db: 1 port published",
        "sleepy: 1 port asleep",
        "web: 2 ports released",
        "db: 1 port released",
        "sleepy: 1 port released"
      ])
    }))

  test("gives a container another port where the one that it had is taken, and says so", () =>
    Effect.gen(function* () {
      const state = newState()
      ;(yield* MemoryHost).take("tcp", addressUnsafe("0.0.0.0"), 9000)
      const [one] = groups("0.0.0.0::80")
      if (one === undefined) throw new Error("no group")
      const tries = [{ _tag: "Exact", port: 9000 } as const, one.group.ports]
      assert.deepStrictEqual(
        (yield* applyDifference(state, { ...nothing, map: [{ desired: one, tries }] })).problems,
        []
      )
      assert.deepStrictEqual(lines, [
        "web: got a different port than before for 0.0.0.0::80: bind for 0.0.0.0:9000/tcp failed: address already in use",
        "web: 1 port published"
      ])
      assert.notInclude([undefined, 9000], state.observed.get(one.key)?.port)
    }))

  test("maps no port that a user unmapped meanwhile", () =>
    Effect.gen(function* () {
      const state = newState()
      const all = groups("0.0.0.0:8080-8081:80-81")
      const [first] = yield* mapped(state, all)
      const driver = yield* Driver
      const labels = new Map<string, string>()
      yield* driver.unmapPorts({ bindings: first?.bindings ?? [], labels })
      state.dismiss({ bindings: first?.bindings ?? [], labels })
      yield* mapped(state, all)
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8081 -> 172.17.0.2:81 live watch"])
    }))

  test("is not carried out, and nothing is forgotten, where the driver fails to release", () =>
    Effect.gen(function* () {
      const state = newState()
      const release = yield* mapped(state, groups("0.0.0.0:8080:80"))
      const base = yield* Driver
      const failing = Driver.of({
        ...base,
        unmapPorts: () => Effect.fail({ _tag: "No", message: "no luck" })
      })
      for (const difference of [
        { ...nothing, release },
        { ...nothing, after: release }
      ])
        assert.deepStrictEqual(
          yield* Effect.provideService(applyDifference(state, difference), Driver, failing),
          { problems: [], released: false }
        )
      assert.include(lines, "unmapping ports that containers no longer need: no luck")
      assert.notInclude(lines, "web: 1 port released")
      assert.strictEqual(state.observed.size, 1)
    }))

  test("leaves a group at its address that could not move to another", () =>
    Effect.gen(function* () {
      const state = newState()
      const all = groups("0.0.0.0:8080:80")
      const after = yield* mapped(state, all)
      const base = yield* Driver
      const stuck = Driver.of({ ...base, mapPorts: () => Effect.fail({ _tag: "No", message: "no luck" }) })
      const { problems } = yield* Effect.provideService(
        applyDifference(state, { ...nothing, map: toMap(all), after }),
        Driver,
        stuck
      )
      assert.deepStrictEqual(
        problems.map(({ name, detail }) => `${name}: ${detail}`),
        ["web: no luck"]
      )
      assert.deepStrictEqual(yield* listed(base), ["0.0.0.0:8080 -> 172.17.0.2:80 live watch"])
      yield* applyDifference(state, { ...nothing, map: toMap(all), after })
      assert.deepStrictEqual(yield* listed(base), [])
    }))
})

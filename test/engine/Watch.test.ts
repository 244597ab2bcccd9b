import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Layer, Result, Scope } from "effect"
import { TestClock } from "effect/testing"
import { startWatch, type WatchOptions } from "../../adapters/engine/Watch.ts"
import { RecordError, WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { InterfaceAddresses, MemoryInterfaces } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver, ListedOwner } from "../../src/protocol/Driver.ts"
import type { Release } from "../../src/protocol/PortBinding.ts"
import { parsePublish, parseUnpublish } from "../../src/protocol/PublishSyntax.ts"
import { group } from "../support/groups.ts"
import { MemoryEngine } from "./MemoryEngine.ts"
import { lines, test } from "./watchTest.ts"

const publish = (text: string, more: Record<string, string> = {}) => ({
  "portmapper.publish": text,
  ...more
})

/** The driver's mappings, as `FRONTEND -> BACKEND STATE OWNER`, IPv4 alone. */
const listed = (driver: Driver["Service"]) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (mappings) =>
    mappings
      .filter(({ frontendIp }) => !frontendIp.includes(":"))
      .map(
        ({ frontendIp, frontendPort, backendIp, backendPort, state, owner }) =>
          `${frontendIp}:${frontendPort} -> ${backendIp}:${backendPort} ${state} ${owner}`
      )
      .sort()
  )

const errors = (driver: Driver["Service"]) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (mappings) =>
    mappings.flatMap(({ labels }) => {
      const error = labels.get("portmapper.error")
      return error === undefined ? [] : [`${labels.get("portmapper.container")}: ${error}`]
    })
  )

/** Time for the watch to see an event and act on it. */
const settle = TestClock.adjust("100 millis")

const start = (options: Partial<WatchOptions> = {}) =>
  Effect.tap(startWatch({ trustImageLabels: false, ...options }), settle)

/** As `start`, for a part of a test: the watch ends with it, and its ports stay published. */
const during = <A, E, R>(body: (driver: Driver["Service"]) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.flatMap(start(), body))

/** A port on every address, with any backend. */
const unmapping = (port: number): Release => ({
  bindings: ["0.0.0.0", "::"].map((text) => ({
    protocol: "tcp",
    host: addressUnsafe(text),
    port,
    backend: { address: undefined, port: 0 }
  })),
  labels: new Map()
})

const parsed = (text: string) => {
  const result = parsePublish(text)
  if (result._tag === "Failure") throw new Error(result.failure)
  return result.success
}

const unpublished = (text: string) => Result.getOrThrow(parseUnpublish(text))

const follow = (driver: Driver["Service"], container: string, ...texts: ReadonlyArray<string>) =>
  Effect.scoped(
    driver.followContainer?.({ container, publish: texts.map(parsed), labels: new Map() }) ??
      Effect.die("not offered")
  ).pipe(Effect.provideService(CurrentOwner, "cli"))

describe("a watch", () => {
  test("keeps the ports of containers that are not ready without traffic, and those of plain ones with it", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const unready = { unready: "starting" } as const
      const labels = {
        plain: publish("8000:80"),
        follows: publish("8001:80", { "portmapper.health": "follow" }),
        held: publish("8002:80", { "portmapper.wait-healthy": "30s", "portmapper.idle": "asleep" }),
        "web-1": publish("8003:80", { "portmapper.share": "web" }),
        ignores: publish("8004:80", { "portmapper.share": "web", "portmapper.health": "ignore" })
      }
      for (const [name, own] of Object.entries(labels)) {
        yield* engine.run({ name, labels: own })
        yield* engine.alter(name, unready)
      }
      const driver = yield* start()
      const states = Effect.map(listed(driver), (all) =>
        all.map((line) => line.replace(/^0\.0\.0\.0:(\d+) -> \S+ (\w+) watch$/, "$1 $2"))
      )
      assert.deepStrictEqual(yield* states, [
        "8000 live",
        "8001 waiting",
        "8002 waiting",
        "8003 waiting",
        "8004 live"
      ])
      const ready = Effect.gen(function* () {
        for (const name of Object.keys(labels)) yield* engine.alter(name, { unready: undefined }, "unpause")
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(
          yield* states,
          [8000, 8001, 8002, 8003, 8004].map((port) => `${port} live`)
        )
      })
      yield* ready
      // Its health check is not what a paused one lacks.
      for (const name of Object.keys(labels)) yield* engine.alter(name, { unready: "paused" }, "pause")
      yield* settle
      assert.deepStrictEqual(yield* states, [
        "8000 live",
        ...[8001, 8002, 8003, 8004].map((port) => `${port} waiting`)
      ])
      yield* ready
      for (const name of Object.keys(labels)) yield* engine.stop(name)
      yield* settle
      assert.deepStrictEqual(yield* states, [])
    }))

  test("takes the traffic of a backend that died, also while the Engine still lists it as running", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web-1", labels: publish("8080:80", { "portmapper.share": "web" }) })
      const driver = yield* start()
      const states = Effect.map(listed(driver), (all) => all.map((line) => line.split(" ").at(-2)))
      const died = Effect.andThen(engine.alter("web-1", {}, "die"), settle)
      yield* died
      assert.deepStrictEqual(yield* states, ["waiting"])
      yield* Effect.andThen(engine.stop("web-1"), settle)
      assert.deepStrictEqual(yield* states, [])
      yield* Effect.andThen(engine.start("web-1"), settle)
      assert.deepStrictEqual(yield* states, ["live"])
      // Its start is lost with the connection.
      yield* died
      yield* engine.away
      yield* engine.back
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, ["live"])
    }))

  test("drains the container of a name, and none whose id begins with it or that had it before", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const other = yield* engine.run({ name: "other", labels: publish("8000:80") })
      const name = other.slice(0, 3)
      const driver = yield* start()
      const drained = Effect.fnUntraced(function* (backend: string) {
        const request = { backend, ports: [], drained: true }
        const bindings = yield* driver.drain?.(request) ?? Effect.die("no drain")
        return bindings.filter(({ entry: { host } }) => host.family === 4).map(({ port }) => port)
      })
      assert.deepStrictEqual(yield* drained(name), [8000])
      yield* engine.run({ name, labels: publish("8001:80", { "portmapper.share": "web" }) })
      yield* settle
      assert.deepStrictEqual(yield* drained(name), [8001])
      // As compose does where it makes a container anew. Its port is taken, so that the old mapping keeps the name.
      yield* engine.rename(name, `${other.slice(0, 12)}_${name}`)
      yield* engine.run({ name, labels: publish("8002:80") })
      yield* settle
      assert.deepStrictEqual(yield* drained(name), [8002])
    }))

  test("publishes running and newly started containers, and unpublishes those that end", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("8080:80,127.0.0.1:9000-9001:9000-9001/udp") })
      const driver = yield* start()
      assert.deepStrictEqual(yield* listed(driver), [
        "0.0.0.0:8080 -> 172.17.0.2:80 live watch",
        "127.0.0.1:9000 -> 172.17.0.2:9000 live watch",
        "127.0.0.1:9001 -> 172.17.0.2:9001 live watch"
      ])
      yield* engine.run({ name: "plain" })
      yield* engine.run({ name: "db", labels: publish("5432:5432") })
      yield* engine.stop("web")
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:5432 -> 172.17.0.4:5432 live watch"])
      yield* engine.remove("db")
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), [])
      assert.deepStrictEqual((yield* MemoryHost).open(), [])
      assert.deepStrictEqual(
        lines.filter((line) => line.includes(" port")),
        ["web: 3 ports published", "web: 3 ports released", "db: 1 port published", "db: 1 port released"]
      )
    }))

  test("keeps the ephemeral port of a container that is restarted with another address", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("80,7000-7010:81") })
      const driver = yield* start()
      const [first = ""] = yield* listed(driver)
      yield* engine.stop("web")
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), [])
      // Other containers take the next ones meanwhile.
      yield* engine.run({ name: "other", labels: publish("80") })
      yield* engine.start("web", { bridge: ["172.17.0.9"] })
      yield* settle
      const now = yield* listed(driver)
      const port = /:(\d+) /.exec(first)?.[1]
      assert.include(now, `0.0.0.0:${port} -> 172.17.0.9:80 live watch`)
      assert.include(now, "0.0.0.0:7000 -> 172.17.0.9:81 live watch")
    }))

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

  test("keeps it through a restart of the watch, whether or not the container runs meanwhile", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("80") })
      yield* engine.run({ name: "db", labels: publish("5432") })
      const before = yield* during((driver) =>
        Effect.gen(function* () {
          const all = yield* listed(driver)
          yield* engine.stop("db")
          yield* settle
          return all
        })
      )
      yield* engine.run({ name: "third", labels: publish("1") })
      yield* engine.start("db", { bridge: ["172.17.0.3"] })
      const driver = yield* start()
      const after = yield* listed(driver)
      for (const line of before) assert.include(after, line)
      assert.lengthOf(after, 3)
    }))

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

  test("reports problems by the container's name, lists them, and publishes the other containers", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const host = yield* MemoryHost
      host.take("tcp", addressUnsafe("0.0.0.0"), 8081)
      yield* engine.run({ name: "typo", labels: publish("80:80:80:80") })
      yield* engine.run({ name: "guarded", labels: publish("8080:80", { "portmapper.allow": "everyone" }) })
      yield* engine.run({ name: "strange", labels: publish("8080:80", { "portmapper.alow": "10.0.0.0/8" }) })
      yield* engine.run({ name: "cased", labels: { "portmapper.Publish": "8080:80" } })
      yield* engine.image("other", { "portmapper.version": "1" })
      yield* engine.run({ name: "elses", labels: { "portmapper.version": "1" }, image: "other" })
      yield* engine.run({ name: "taken", labels: publish("8081:80,8082:80") })
      yield* engine.run({ name: "second", labels: publish("8082:80") })
      yield* engine.run({ name: "hostly", labels: publish("8083:80"), networkMode: "host", networks: {} })
      yield* engine.run({ name: "fine", labels: publish("8084:80") })
      const driver = yield* start()
      const all = yield* errors(driver)
      assert.lengthOf(all, 7)
      assert.match(
        all.find((text) => text.startsWith("typo: ")) ?? "",
        /host address "80:80": not an IPv4 or IPv6 address/
      )
      assert.match(all.find((text) => text.startsWith("guarded: ")) ?? "", /portmapper.allow.*everyone/)
      assert.match(
        all.find((text) => text.startsWith("strange: ")) ?? "",
        /one of the known labels \(the nearest is portmapper\.allow\)/
      )
      assert.include(
        all.find((text) => text.startsWith("cased: ")),
        'Labels["portmapper.Publish"] = "8080:80": must be one of the known labels (the nearest is portmapper.publish)'
      )
      assert.include(all, "taken: bind for 0.0.0.0:8081/tcp failed: address already in use")
      assert.match(all.find((text) => text.startsWith("second: ")) ?? "", /8082.*port is already allocated/)
      assert.include(all, "hostly: it is in the host's own network, where its ports are the host's already")
      const live = (yield* listed(driver)).filter((line) => line.includes(" live "))
      assert.deepStrictEqual(live, [
        "0.0.0.0:8082 -> 172.17.0.7:80 live watch",
        "0.0.0.0:8084 -> 172.17.0.10:80 live watch"
      ])
      const tellings = () => lines.filter((line) => line.startsWith("taken: not published: "))
      assert.deepStrictEqual(tellings(), [
        "taken: not published: 8081:80: bind for 0.0.0.0:8081/tcp failed: address already in use"
      ])
      yield* TestClock.adjust("2 minutes")
      assert.lengthOf(tellings(), 1)
      host.free("tcp", addressUnsafe("0.0.0.0"), 8081)
      yield* TestClock.adjust("1 minute")
      assert.include(yield* listed(driver), "0.0.0.0:8081 -> 172.17.0.7:80 live watch")
    }))

  test("ignores labels of an image, unless it is started to trust them", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.image("greedy", publish("22:22"))
      yield* engine.run({ name: "pulled", image: "greedy", labels: publish("22:22") })
      yield* engine.run({ name: "overridden", image: "greedy", labels: publish("2222:22") })
      yield* during((driver) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:2222 -> 172.17.0.3:22 live watch"])
        })
      )
      assert.deepStrictEqual(
        lines.filter((line) => line.startsWith("pulled: ")),
        [
          "pulled: portmapper.publish=22:22 is ignored: the label is its image's; --trust-image-labels publishes it"
        ]
      )
      const driver = yield* start({ trustImageLabels: true })
      assert.include(yield* listed(driver), "0.0.0.0:22 -> 172.17.0.2:22 live watch")
    }))

  test("keeps the operator's allow-list where the image carries the same", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const allow = { "portmapper.allow": "10.0.0.0/8" }
      yield* engine.image("stripping", allow)
      yield* engine.run({ name: "web", image: "stripping", labels: publish("0.0.0.0:8080:80", allow) })
      yield* start()
      const { rules } = yield* MemoryFirewall
      assert.deepStrictEqual(rules(), ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 from 10.0.0.0/8"])
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

  test("follows a rename and changes of a container's networks", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("8080:80", { "portmapper.network": "front" }) })
      const driver = yield* start()
      assert.deepStrictEqual(yield* errors(driver), [
        "web: portmapper.network=front: it has no address in that network; its networks are bridge"
      ])
      yield* engine.connect("web", "front", ["172.18.0.2", "fd00::2"])
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8080 -> 172.18.0.2:80 live watch"])
      const rules = (yield* MemoryFirewall).rules()
      assert.include(rules, "Redirect [::]:8080/tcp -> [fd00::2]:80")
      yield* engine.rename("web", "site")
      yield* settle
      const [mapping] = yield* driver.listPorts ?? Effect.succeed([])
      assert.match(mapping?.labels.get("portmapper.container") ?? "", /^site\//)
      yield* engine.disconnect("site", "front")
      yield* settle
      assert.deepStrictEqual((yield* MemoryFirewall).rules(), [])
    }))

  test("publishes a container that shares another's network at that one's address", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const id = yield* engine.run({ name: "pod", networks: { bridge: ["172.17.0.7"] } })
      yield* engine.run({
        name: "side",
        labels: publish("8080:80"),
        networkMode: `container:${id}`,
        networks: {}
      })
      const driver = yield* start()
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8080 -> 172.17.0.7:80 live watch"])
      yield* engine.stop("pod")
      yield* settle
      assert.include((yield* errors(driver)).join(), "it shares the network of pod, which is not running")
    }))

  test("reconciles once a lost Engine is back, and logs the loss once", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      const driver = yield* start()
      yield* engine.away
      yield* TestClock.adjust("1 minute")
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

  test("does not map again what a user unmapped until its container is restarted", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web", labels: publish("8080:80,8081:80") })
      const driver = yield* start()
      yield* driver.unmapPorts(unmapping(8080))
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8081 -> 172.17.0.2:80 live watch"])
      yield* engine.stop("web")
      yield* settle
      yield* engine.start("web")
      yield* settle
      assert.lengthOf(yield* listed(driver), 2)
    }))

  test("retries with growing delays while the driver fails", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const base = yield* Driver
      const tried: Array<number> = []
      const failing = Driver.of({
        ...base,
        listPorts: Effect.gen(function* () {
          tried.push(yield* Clock.currentTimeMillis)
          if (tried.length < 7) return yield* Effect.fail({ _tag: "Broken", message: "the disk is full" })
          return yield* base.listPorts ?? Effect.succeed([])
        })
      })
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      yield* Effect.provideService(start(), Driver, failing)
      yield* TestClock.adjust("90 seconds")
      assert.deepStrictEqual(tried.slice(0, 7), [0, 1000, 3000, 7000, 15_000, 31_000, 61_000])
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
})

describe("a subscription to a container", () => {
  test("publishes at once, through restarts, renames and a new container of its name, until it is unmapped", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web" })
      const driver = yield* start()
      const bindings = yield* follow(driver, "web", "8080:80", "81")
      assert.lengthOf(bindings, 4)
      const port = bindings[2]?.port
      const expected = (address: string) =>
        [`0.0.0.0:8080 -> ${address}:80 live cli`, `0.0.0.0:${port} -> ${address}:81 live cli`].sort()
      assert.deepStrictEqual(yield* listed(driver), expected("172.17.0.2"))
      yield* engine.stop("web")
      yield* settle
      assert.deepStrictEqual(yield* errors(driver), [
        "web: container web is not running",
        "web: container web is not running"
      ])
      yield* engine.start("web", { bridge: ["172.17.0.20"] })
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), expected("172.17.0.20"))
      yield* engine.rename("web", "site")
      yield* settle
      yield* engine.remove("site")
      yield* settle
      assert.include(yield* errors(driver), "site: there is no container site now")
      yield* engine.run({ name: "site", networks: { bridge: ["172.17.0.30"] } })
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), expected("172.17.0.30"))
      const unmapping = bindings.map(({ entry, port }) => ({
        protocol: entry.protocol,
        host: entry.host,
        port,
        backend: { address: undefined, port: 0 }
      }))
      yield* driver.unmapPorts({ bindings: unmapping, labels: new Map() })
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* listed(driver), [])
      assert.deepStrictEqual((yield* (yield* WatchRecord).load).follows, [])
    }))

  test("ends where the answer was lost, and others made meanwhile stay", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const record = yield* WatchRecord
      yield* engine.run({ name: "web" })
      const driver = yield* start()
      const delivery = yield* Scope.make()
      yield* (
        driver.followContainer?.({ container: "web", publish: [parsed("8080:80")], labels: new Map() }) ??
        Effect.die("not offered")
      ).pipe(Scope.provide(delivery), Effect.provideService(CurrentOwner, "cli"))
      yield* follow(driver, "web", "8081:80")
      yield* Scope.close(delivery, Exit.fail("the client is gone"))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8081 -> 172.17.0.2:80 live cli"])
      yield* engine.rename("web", "site")
      yield* settle
      assert.deepStrictEqual(
        (yield* record.load).follows.map(({ name, publish }) => `${name} ${publish}`),
        ["site 8081:80"]
      )
    }))

  test("ends while the container does not run, too", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web" })
      const driver = yield* start()
      yield* follow(driver, "web", "8080-8081:80-81")
      yield* engine.stop("web")
      yield* settle
      const unmapping = [
        {
          protocol: "tcp" as const,
          host: addressUnsafe("0.0.0.0"),
          port: 8081,
          backend: { address: undefined, port: 0 }
        }
      ]
      yield* driver.unmapPorts({ bindings: unmapping, labels: new Map() })
      yield* engine.start("web", { bridge: ["172.17.0.2"] })
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8080 -> 172.17.0.2:80 live cli"])
    }))

  test("survives in the next process", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web" })
      const before = yield* during((driver) => Effect.andThen(follow(driver, "web", "80"), listed(driver)))
      yield* engine.stop("web")
      const driver = yield* start()
      assert.deepStrictEqual(
        (yield* listed(driver)).filter((line) => line.includes(" live ")),
        []
      )
      yield* engine.start("web", { bridge: ["172.17.0.2"] })
      yield* settle
      assert.deepStrictEqual(yield* listed(driver), before)
    }))

  test("is refused where the container is missing, does not run or can't have a port, and leaves nothing", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const host = yield* MemoryHost
      const driver = yield* start()
      const refusal = (name: string, ...texts: ReadonlyArray<string>) =>
        Effect.map(Effect.flip(follow(driver, name, ...texts)), ({ message }) => message)
      assert.strictEqual(yield* refusal("web", "80"), "no such container: web")
      yield* engine.run({ name: "web" })
      yield* engine.stop("web")
      assert.strictEqual(yield* refusal("web", "80"), "container web is not running")
      yield* engine.start("web")
      host.take("tcp", addressUnsafe("0.0.0.0"), 8081)
      assert.strictEqual(
        yield* refusal("web", "8080:80", "8081:80"),
        "bind for 0.0.0.0:8081/tcp failed: address already in use"
      )
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* listed(driver), [])
      yield* engine.away
      assert.match(yield* refusal("web", "80"), /^the Engine at memory: no process is listening there/)
    }))

  test("is refused while it can't be recorded, and a port that is unmapped is recorded once it can be", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web" })
      const record = yield* WatchRecord
      const disk = { isFull: false }
      const full = new RecordError({ path: "watch.json", detail: "no space left on device" })
      const driver = yield* Effect.provideService(start(), WatchRecord, {
        ...record,
        save: (recorded) => Effect.suspend(() => (disk.isFull ? Effect.fail(full) : record.save(recorded)))
      })
      const followed = Effect.map(record.load, ({ follows }) => follows.map(({ publish }) => publish))
      yield* follow(driver, "web", "8080:80")
      disk.isFull = true
      const refused = yield* Effect.flip(follow(driver, "web", "8081:81"))
      assert.strictEqual(refused.message, "the watch's record watch.json: no space left on device")
      assert.deepStrictEqual(yield* listed(driver), ["0.0.0.0:8080 -> 172.17.0.2:80 live cli"])
      const kept = yield* Effect.flip(Effect.scoped(driver.unmapPorts(unmapping(8080))))
      assert.strictEqual(kept.message, refused.message)
      assert.deepStrictEqual(yield* followed, ["8080:80"])
      disk.isFull = false
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* followed, [])
      assert.deepStrictEqual(yield* listed(driver), [])
    }))
})

describe("ports at an interface", () => {
  const addresses = (...texts: ReadonlyArray<string>) => texts.map(addressUnsafe)

  /** Every row of both families, as `listed`; of a waiting one its error. */
  const rows = (driver: Driver["Service"]) =>
    Effect.map(driver.listPorts ?? Effect.succeed([]), (mappings) =>
      mappings
        .map(
          ({ frontendIp, frontendPort, backendIp, labels, state }) =>
            `${frontendIp}:${frontendPort} -> ${backendIp} ${labels.get("portmapper.error") ?? state}`
        )
        .sort()
    )

  const followInterface = (driver: Driver["Service"], publish: string, owner = "cli") =>
    Effect.scoped(
      driver.followInterface?.({
        to: { v4: addressUnsafe("172.17.0.2"), v6: undefined },
        publish: [parsed(publish)],
        labels: new Map()
      }) ?? Effect.die("not offered")
    ).pipe(Effect.provideService(CurrentOwner, owner))

  const unmapAt = (name: string, port: number): Release => ({
    ...unmapping(port),
    labels: new Map([["portmapper.interface", name]])
  })

  test("follow its addresses, for a container's labels and for a container that a user names", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const interfaces = yield* MemoryInterfaces
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      yield* engine.run({ name: "web", labels: publish("eth0:8080:80") })
      yield* engine.run({ name: "db", labels: publish("5432:5432", { "portmapper.interface": "eth0" }) })
      yield* engine.run({ name: "user" })
      const driver = yield* start()
      yield* follow(driver, "user", "eth0:9090:90")
      const at = (address: string) => [
        `${address}:5432 -> 172.17.0.3 live`,
        `${address}:8080 -> 172.17.0.2 live`,
        `${address}:9090 -> 172.17.0.4 live`
      ]
      assert.deepStrictEqual(yield* rows(driver), at("192.0.2.1"))
      yield* interfaces.set("eth0", addresses("192.0.2.1", "2001:db8::1"))
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [...at("192.0.2.1"), ...at("2001:db8::1")])
      yield* interfaces.set("eth0", addresses("2001:db8::1"))
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), at("2001:db8::1"))
      yield* engine.stop("web")
      yield* engine.stop("user")
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [
        "2001:db8::1:5432 -> 172.17.0.3 live",
        "2001:db8::1:9090 ->  container user is not running"
      ])
    }))

  test("are drained at an address that comes while they are drained at all others", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const interfaces = yield* MemoryInterfaces
      yield* interfaces.set("eth0", addresses("192.0.2.1", "192.0.2.2"))
      yield* engine.run({ name: "web", labels: publish("eth0:8080:80,eth0:8081:81") })
      const driver = yield* start()
      const drain = (drained: boolean, ...ports: ReadonlyArray<string>) =>
        driver.drain?.({ backend: "web", ports: ports.map(unpublished), drained }) ?? Effect.die("no drain")
      yield* drain(true, "eth0:8080", "192.0.2.1:8081")
      yield* interfaces.set("eth0", addresses("192.0.2.2", "192.0.2.3"))
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [
        "192.0.2.2:8080 -> 172.17.0.2 drained",
        "192.0.2.2:8081 -> 172.17.0.2 live",
        "192.0.2.3:8080 -> 172.17.0.2 drained",
        "192.0.2.3:8081 -> 172.17.0.2 live"
      ])
      yield* drain(false)
      yield* interfaces.set("eth0", addresses("192.0.2.3", "192.0.2.4"))
      yield* settle
      assert.deepStrictEqual(
        (yield* rows(driver)).filter((row) => !row.endsWith(" live")),
        []
      )
    }))

  test("wait for it, and are listed with the reason", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const interfaces = yield* MemoryInterfaces
      yield* engine.run({ name: "web", labels: publish("wg0:8080:80") })
      const driver = yield* start()
      assert.deepStrictEqual(yield* followInterface(driver, "wg0:9090:90"), [])
      yield* settle
      const waitingFor = (why: string) => [`:8080 -> 172.17.0.2 ${why}`, `:9090 -> 172.17.0.2 ${why}`]
      assert.deepStrictEqual(yield* rows(driver), waitingFor("there is no interface wg0 now"))
      yield* interfaces.set("wg0", [])
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), waitingFor("the interface wg0 has no address now"))
      yield* interfaces.set("wg0", addresses("10.0.0.1"))
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [
        "10.0.0.1:8080 -> 172.17.0.2 live",
        "10.0.0.1:9090 -> 172.17.0.2 live"
      ])
      yield* interfaces.remove("wg0")
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), waitingFor("there is no interface wg0 now"))
      assert.deepStrictEqual((yield* MemoryHost).open(), [])
    }))

  test("are published at its other addresses where the port of one is taken", () =>
    Effect.gen(function* () {
      const interfaces = yield* MemoryInterfaces
      const host = yield* MemoryHost
      host.take("tcp", addressUnsafe("192.0.2.2"), 8080)
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      const driver = yield* start()
      yield* followInterface(driver, "eth0:8080:80")
      yield* interfaces.set("eth0", addresses("192.0.2.1", "192.0.2.2", "192.0.2.3"))
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [
        "192.0.2.1:8080 -> 172.17.0.2 live",
        "192.0.2.2:8080 -> 172.17.0.2 bind for 192.0.2.2:8080/tcp failed: address already in use",
        "192.0.2.3:8080 -> 172.17.0.2 live"
      ])
      host.free("tcp", addressUnsafe("192.0.2.2"), 8080)
      yield* TestClock.adjust("31 seconds")
      assert.include(yield* rows(driver), "192.0.2.2:8080 -> 172.17.0.2 live")
    }))

  test("are refused as a whole where the port of one of its addresses is taken at the call, or by a session", () =>
    Effect.gen(function* () {
      const interfaces = yield* MemoryInterfaces
      const host = yield* MemoryHost
      host.take("tcp", addressUnsafe("192.0.2.2"), 8080)
      yield* interfaces.set("eth0", addresses("192.0.2.1", "192.0.2.2"))
      const driver = yield* start()
      const refusal = (owner?: string) =>
        Effect.map(Effect.flip(followInterface(driver, "eth0:8080:80", owner)), ({ message }) => message)
      assert.strictEqual(yield* refusal(), "bind for 192.0.2.2:8080/tcp failed: address already in use")
      assert.strictEqual(
        yield* refusal("session:a"),
        "session:a is a session, which ends, and an interface is followed until it is unmapped: name another owner"
      )
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(yield* rows(driver), [])
      assert.deepStrictEqual(host.open(), [])
    }))

  test("end at all of its addresses where they are unmapped at it or at one of them, waiting or not", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const interfaces = yield* MemoryInterfaces
      yield* interfaces.set("eth0", addresses("192.0.2.1", "192.0.2.2"))
      yield* engine.run({ name: "web", labels: publish("eth0:8080:80") })
      const driver = yield* start()
      for (const text of ["eth0:8081:80", "eth0:8082:80", "wg0:8083:80"]) yield* followInterface(driver, text)
      yield* settle
      assert.lengthOf(yield* rows(driver), 7)
      // Another interface, and every address of the host, are not this interface.
      for (const release of [unmapAt("wg0", 8081), unmapAt("eth0", 8083), unmapping(8081), unmapping(8083)])
        yield* driver.unmapPorts(release)
      yield* settle
      assert.lengthOf(yield* rows(driver), 7)
      for (const release of [unmapAt("eth0", 8080), unmapAt("eth0", 8081), unmapAt("wg0", 8083)])
        yield* driver.unmapPorts(release)
      const [binding] = unmapping(8082).bindings
      const atOne = { ...binding, protocol: "tcp", host: addressUnsafe("192.0.2.2"), port: 8082 } as const
      yield* driver.unmapPorts({
        bindings: [{ ...atOne, backend: { address: undefined, port: 0 } }],
        labels: new Map()
      })
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [])
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      yield* interfaces.set("wg0", addresses("10.0.0.1"))
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(yield* rows(driver), [])
      assert.deepStrictEqual((yield* MemoryHost).open(), [])
    }))

  test("are undone where the answer to the call is lost", () =>
    Effect.gen(function* () {
      const interfaces = yield* MemoryInterfaces
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      const driver = yield* start()
      const lost = Effect.gen(function* () {
        yield* driver.followInterface?.({
          to: { v4: addressUnsafe("172.17.0.2"), v6: undefined },
          publish: [parsed("eth0:8080:80")],
          labels: new Map()
        }) ?? Effect.die("not offered")
        return yield* Effect.fail("lost")
      })
      yield* Effect.flip(Effect.scoped(lost))
      yield* interfaces.set("eth0", addresses("192.0.2.1", "192.0.2.2"))
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(yield* rows(driver), [])
      assert.deepStrictEqual((yield* WatchRecord.use(({ load }) => load)).follows, [])
    }))

  test("go on where the Engine is away", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const interfaces = yield* MemoryInterfaces
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      yield* engine.run({ name: "web", labels: publish("8080:80") })
      yield* engine.run({ name: "typo", labels: publish("80:http") })
      const driver = yield* start()
      yield* followInterface(driver, "eth0:9090:90")
      yield* engine.away
      yield* interfaces.set("eth0", addresses("192.0.2.2"))
      yield* settle
      assert.deepStrictEqual(yield* rows(driver), [
        "0.0.0.0:8080 -> 172.17.0.2 live",
        "192.0.2.2:9090 -> 172.17.0.2 live",
        ':0 ->  container port "http": expected PORT or FIRST-LAST',
        ":::8080 -> 172.17.0.2 live"
      ])
    }))

  it.effect("are all that is followed where no Engine is watched, through restarts", () =>
    Effect.gen(function* () {
      const interfaces = yield* MemoryInterfaces
      const base = yield* Driver
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      const ofContainer = group("8080", ["tcp 0.0.0.0 172.17.0.9:80"], {
        "portmapper.container": "web/0123456789ab",
        "portmapper.publish": "8080:80"
      })
      yield* Effect.scoped(base.mapPorts(ofContainer)).pipe(Effect.provideService(CurrentOwner, "watch"))
      yield* during((driver) => {
        assert.isUndefined(driver.followContainer)
        return followInterface(driver, "eth0:9090:90")
      })
      yield* interfaces.set("eth0", addresses("192.0.2.2"))
      const driver = yield* start()
      assert.deepStrictEqual(yield* rows(driver), [
        "0.0.0.0:8080 -> 172.17.0.9 live",
        "192.0.2.2:9090 -> 172.17.0.2 live"
      ])
      yield* driver.unmapPorts(unmapAt("eth0", 9090))
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(yield* rows(driver), ["0.0.0.0:8080 -> 172.17.0.9 live"])
    }).pipe(
      Effect.provide(
        Layer.mergeAll(PortMapper.layerMemory(), InterfaceAddresses.layerMemory, WatchRecord.layerMemory)
      )
    )
  )

  it.effect("are not left behind by a call that a kill cut off", () =>
    Effect.gen(function* () {
      const interfaces = yield* MemoryInterfaces
      const base = yield* Driver
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      const cutOff = group("8080", ["tcp 192.0.2.1 172.17.0.2:80"], {
        "portmapper.to": "172.17.0.2",
        "portmapper.publish": "eth0:8080:80"
      })
      yield* Effect.scoped(base.mapPorts(cutOff)).pipe(Effect.provideService(CurrentOwner, "cli"))
      const driver = yield* start()
      assert.deepStrictEqual(yield* rows(driver), [])
    }).pipe(
      Effect.provide(
        Layer.mergeAll(PortMapper.layerMemory(), InterfaceAddresses.layerMemory, WatchRecord.layerMemory)
      )
    )
  )

  test("are a problem of the container where its labels contradict each other", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const interfaces = yield* MemoryInterfaces
      yield* interfaces.set("eth0", addresses("192.0.2.1"))
      const at = (name: string, text: string, value: string) =>
        engine.run({ name, labels: publish(text, { "portmapper.interface": value }) })
      yield* at("elsewhere", "192.0.2.1:8080:80", "eth0")
      yield* at("any", "80", "eth0")
      yield* at("misspelt", "8080:80", "eth 0")
      const driver = yield* start()
      assert.deepStrictEqual((yield* errors(driver)).sort(), [
        "any: an interface needs an exact host port for each container port: eth0:PORT:80",
        "elsewhere: published at 192.0.2.1 already, so not at the interface eth0",
        'misspelt: bad request: Labels["portmapper.interface"] = "eth 0": must be the name of an interface: at most 15 letters, digits, `_`, `.` and `-`, with a letter among them, and not one of localhost (whose interface is lo), all and default'
      ])
    }))
})

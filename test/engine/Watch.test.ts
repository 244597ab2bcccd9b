import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { TestClock } from "effect/testing"
import { WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { InterfaceAddresses, MemoryInterfaces } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import type { Release } from "../../src/protocol/PortBinding.ts"
import { parseUnpublish } from "../../src/protocol/PublishSyntax.ts"
import { group } from "../support/groups.ts"
import { MemoryEngine } from "./MemoryEngine.ts"
import {
  addresses,
  during,
  errors,
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

const unpublished = (text: string) => Result.getOrThrow(parseUnpublish(text))

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

  test("sees a pause that the Engine's lists show only once it is done", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      yield* engine.run({ name: "web-1", labels: publish("8080:80", { "portmapper.share": "web" }) })
      const driver = yield* start()
      const states = Effect.map(listed(driver), (all) => all.map((line) => line.split(" ").at(-2)))
      yield* Effect.andThen(engine.alterLate("web-1", { unready: "paused" }, "pause"), settle)
      assert.deepStrictEqual(yield* states, ["waiting"])
      yield* Effect.andThen(engine.alterLate("web-1", { unready: undefined }, "unpause"), settle)
      assert.deepStrictEqual(yield* states, ["live"])
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
})

describe("ports at an interface", () => {
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

import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import { RecordError, WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { MemoryInterfaces } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner } from "../../src/protocol/Driver.ts"
import { MemoryEngine } from "./MemoryEngine.ts"
import {
  addresses,
  during,
  errors,
  follow,
  followInterface,
  listed,
  parsed,
  rows,
  settle,
  start,
  test,
  unmapping
} from "./watchTest.ts"

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
      yield* engine.run({ name: "alone", networkMode: "none", networks: {} })
      assert.strictEqual(yield* refusal("alone", "80"), "container alone: it has no network (--network none)")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* listed(driver), [])
      yield* engine.away
      assert.match(yield* refusal("web", "80"), /^the Engine at memory: no process is listening there/)
    }))

  test("gets the port that it had before, or another where that is taken, and is a person's unless said", () =>
    Effect.gen(function* () {
      const engine = yield* MemoryEngine
      const host = yield* MemoryHost
      yield* engine.run({ name: "web" })
      const driver = yield* start()
      const request = { container: "web", publish: [parsed("0.0.0.0::80")], labels: new Map() }
      const followed = Effect.map(
        Effect.scoped(driver.followContainer?.(request) ?? Effect.die("not offered")),
        ([binding]) => binding?.port ?? 0
      )
      const port = yield* followed
      assert.deepStrictEqual(yield* listed(driver), [`0.0.0.0:${port} -> 172.17.0.2:80 live cli`])
      const unmap = Effect.andThen(driver.unmapPorts(unmapping(port)), settle)
      yield* unmap
      assert.strictEqual(yield* followed, port)
      yield* unmap
      host.take("tcp", addressUnsafe("0.0.0.0"), port)
      assert.notInclude([0, port], yield* followed)
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

describe("ports at an interface that a user names", () => {
  test("are refused as a whole where one address has the port taken, to a session, and with a wrong label", () =>
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
      // Also where no address is there yet, at which the driver would look at them.
      const labelled = driver.followInterface?.({
        to: { v4: addressUnsafe("172.17.0.2"), v6: undefined },
        publish: [parsed("wg0:8080:80")],
        labels: new Map([["portmapper.allow", "everyone"]])
      })
      const { message } = yield* Effect.flip(Effect.scoped(labelled ?? Effect.die("not offered")))
      assert.match(message, /^bad request: Labels\["portmapper.allow"\] = "everyone": /)
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(yield* rows(driver), [])
      assert.deepStrictEqual(host.open(), [])
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
})

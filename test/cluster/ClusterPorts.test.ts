import { assert, describe } from "@effect/vitest"
import { Context, Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { bindingText, group } from "../support/groups.ts"
import { claimed, makeHost, other, refusedBy, testHosts as test, two, web, within } from "./MemoryHosts.ts"

describe("an exact port", () => {
  test(
    "of one host is refused on another, with host and container, until it is unmapped",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const bindings = yield* a.map(group("8080", [web], { "portmapper.container": "web" }))
      assert.deepStrictEqual(bindings.map(bindingText), ["0.0.0.0:8080/tcp -> 172.17.0.2:80, forward"])
      assert.strictEqual(yield* b.refused(group("8080", [other])), refusedBy("held by host a, container web"))
      yield* a.unmap(bindings)
      yield* b.map(group("8080", [other]))
      assert.strictEqual(
        yield* a.refused(group("8080", [web])),
        refusedBy("held by host b for 172.17.0.3:80, owner engine")
      )
    })
  )

  test(
    "is given back where the host refuses it",
    Effect.gen(function* () {
      const [a, b] = yield* two
      Context.get(a.kernel, MemoryHost).take("tcp", addressUnsafe("0.0.0.0"), 8080)
      assert.strictEqual(
        yield* a.refused(group("8080", [web])),
        "bind for 0.0.0.0:8080/tcp failed: address already in use"
      )
      assert.deepStrictEqual(yield* claimed, [])
      yield* b.map(group("8080", [web]))
    })
  )
})

describe("a service", () => {
  test(
    "has members on several hosts, and keeps others away until the last one has left",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const shared = (backend: string) =>
        group("8080", [`tcp 0.0.0.0 ${backend}`], { "portmapper.share": "web" })
      const ofA = yield* a.map(shared("172.17.0.2:80"))
      yield* a.map(shared("172.17.0.3:80"))
      const ofB = yield* b.map(shared("172.17.0.2:80"))
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080", "b tcp 8080"])
      const c = yield* makeHost("c")
      assert.strictEqual(yield* c.refused(group("8080", [web])), refusedBy("held by host a, service web"))
      yield* a.unmap(ofA)
      yield* b.unmap(ofB)
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
    })
  )
})

describe("a host", () => {
  test(
    "that is killed leaves its ports to others after the TTL",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.kill
      yield* TestClock.adjust("28 seconds")
      yield* b.refused(group("8080", [other]))
      yield* TestClock.adjust("2 seconds")
      yield* b.map(group("8080", [other]))
      yield* a.start
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* a.listed, [
        `0.0.0.0:8080 conflicted, ${refusedBy("held by host b for 172.17.0.3:80, owner engine")}`
      ])
      assert.deepStrictEqual(yield* a.rules, [])
    })
  )

  test(
    "that is stopped keeps its ports for as long as it may be absent, and finds them again",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      const before = yield* claimed
      yield* a.stop("leave")
      yield* TestClock.adjust("9 minutes")
      assert.deepStrictEqual(yield* claimed, before)
      yield* b.refused(group("8080", [other]))
      yield* a.start
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* claimed, before)
      assert.deepStrictEqual(
        (yield* a.listed).map((line) => line.split(" ")[1]),
        ["live", "live"]
      )
    })
  )

  test(
    "that gives everything back at its end leaves its ports to others at once",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.stop("give back")
      yield* b.map(group("8080", [other]))
    })
  )
})

describe("etcd", () => {
  test(
    "that loses the reply to a claim keeps nothing that was refused",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      etcd.setFaults((host, operation) =>
        host === "a" && operation === "transact" ? { lose: "reply" } : undefined
      )
      yield* within(3001, a.refused(group("8080", [web])))
      etcd.setFaults(() => undefined)
      yield* TestClock.adjust(Duration.seconds(5))
      assert.deepStrictEqual(yield* claimed, [])
      yield* b.map(group("8080", [other]))
    })
  )
})

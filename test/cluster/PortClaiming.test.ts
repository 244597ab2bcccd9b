import { assert, describe } from "@effect/vitest"
import { Context, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { group } from "../support/groups.ts"
import {
  claimed,
  type Host,
  makeHost,
  other,
  refusedBy,
  testHosts as test,
  two,
  web,
  writesOf
} from "./MemoryHosts.ts"

describe("an exact port", () => {
  test(
    "costs one write, for both families together, and none when it is asked for again",
    Effect.gen(function* () {
      const [a] = yield* two
      const asked = group("8080", [web, "tcp :: [fd00::2]:80"])
      assert.strictEqual(yield* writesOf(a, a.map(asked)), 1)
      assert.strictEqual(yield* writesOf(a, a.map(asked)), 0)
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
    })
  )

  test(
    "in UDP is another one than in TCP, and addresses play no part",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("53", ["tcp 10.0.0.1 172.17.0.2:53"]))
      yield* b.map(group("53", ["udp 10.0.0.1 172.17.0.2:53"]))
      assert.strictEqual(
        yield* b.refused(group("53", ["tcp 10.0.0.2 172.17.0.2:53"])),
        refusedBy("held by host a for 172.17.0.2:53, owner engine", "10.0.0.2:53/tcp")
      )
      yield* a.map(group("53", ["tcp 10.0.0.2 172.17.0.3:53"]))
    })
  )
})

describe("several calls at once", () => {
  test(
    "for a port on several hosts give it to one of them",
    Effect.gen(function* () {
      const hosts = [...(yield* two), yield* makeHost("c")]
      const asked = hosts.map((host) => Effect.exit(host.map(group("8080", [web]))))
      const exits = yield* Effect.all(asked, { concurrency: "unbounded" })
      assert.strictEqual(exits.filter(({ _tag }) => _tag === "Success").length, 1)
      assert.strictEqual((yield* claimed).length, 1)
    })
  )

  test(
    "for a port of one host keep its claim as long as one of them has it",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const asked = [web, other].map((backend) => Effect.exit(a.map(group("8080", [backend]))))
      const exits = yield* Effect.all(asked, { concurrency: "unbounded" })
      assert.deepStrictEqual(
        exits.map(({ _tag }) => _tag),
        ["Success", "Failure"]
      )
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
      yield* b.refused(group("8080", [web]))
    })
  )

  test(
    "for a port that one of them gives up keep its claim for the other, which waits for another port",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a] = yield* two
      const bindings = yield* a.map(group("8080", [web]))
      etcd.setFaults(() => ({ replyDelay: Duration.millis(500) }))
      const mapping = yield* Effect.forkChild(a.mapAll([group("8080", [web]), group("9090", [web])]))
      yield* TestClock.adjust("100 millis")
      etcd.setFaults(() => undefined)
      yield* a.unmap(bindings)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(mapping)
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080", "a tcp 9090"])
    })
  )

  test(
    "for ports of several cells get all of them or none",
    Effect.gen(function* () {
      const [a, b] = yield* two
      const ports = (from: number) =>
        Array.from({ length: 80 }, (_, index) =>
          group(`${from + index}`, [`tcp 0.0.0.0 172.17.0.2:${from + index}`])
        )
      yield* b.map(group("8130", [web]))
      const failed = yield* Effect.flip(a.mapAll(ports(8060)))
      assert.deepInclude(failed, { group: 70 })
      assert.deepStrictEqual(yield* claimed, ["b tcp 8130"])
      assert.strictEqual(yield* writesOf(a, a.mapAll(ports(8140))), 2)
      assert.strictEqual((yield* claimed).length, 81)
    })
  )
})

describe("ports of a range", () => {
  test(
    "are given out in order, each to one host, past those that are in use on the host",
    Effect.gen(function* () {
      const [a, b] = yield* two
      Context.get(b.kernel, MemoryHost).take("tcp", addressUnsafe("0.0.0.0"), 8001)
      const one = (host: Host, backend: string) =>
        Effect.map(host.map(group("8000-8003", [`tcp 0.0.0.0 ${backend}`])), ([binding]) => binding?.port)
      assert.strictEqual(yield* one(a, "172.17.0.2:80"), 8000)
      assert.strictEqual(yield* one(b, "172.17.0.2:80"), 8002)
      assert.strictEqual(yield* one(a, "172.17.0.3:80"), 8001)
      assert.strictEqual(yield* one(b, "172.17.0.3:80"), 8003)
      assert.strictEqual(
        yield* a.refused(group("8000-8003", [other])),
        "bind for 0.0.0.0:8000-8003/tcp failed: all ports are allocated in 8000-8003"
      )
      assert.deepStrictEqual(yield* claimed, ["a tcp 8000", "a tcp 8001", "b tcp 8002", "b tcp 8003"])
    })
  )
})

import { assert, describe } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import { type Fault, MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { group } from "../support/groups.ts"
import { claimed, makeHost, other, testHosts as test, two, web } from "./MemoryHosts.ts"

const at = (port: number) => group(`${port}`, [`tcp 0.0.0.0 172.17.0.2:${port}`])

const etcdOf = Effect.map(MemoryEtcd, (etcd) => {
  const claims = () => etcd.entries().filter(([key]) => /\/tcp\.\d+\.a$/.test(key))
  return {
    claims: () => claims().map(([key]) => key.split("/").at(-1)),
    lose: (port: number) =>
      etcd.connection("nobody").transact({
        compare: [],
        success: claims().flatMap(([key]) =>
          key.endsWith(`.${port}.a`) ? [{ _tag: "Delete", key } as const] : []
        )
      }),
    /** The host's next request of this kind meets the fault. */
    strike: (operation: string, fault: Fault) => {
      let left: Fault | undefined = fault
      etcd.setFaults((host, each) => {
        if (host !== "a" || each !== operation) return undefined
        const struck = left
        left = undefined
        return struck
      })
    }
  }
})

const half = Duration.millis(500)

describe("a proof of what a host holds", () => {
  test(
    "is made again where a claim goes after it was read",
    Effect.gen(function* () {
      const etcd = yield* etcdOf
      const host = yield* makeHost("a")
      yield* TestClock.adjust("1 second")
      yield* host.map(at(8080))
      yield* host.map(at(9090))
      etcd.strike("transact", { requestDelay: half })
      yield* etcd.lose(9090)
      yield* TestClock.adjust("100 millis")
      assert.isFalse((yield* host.cluster().status).mayGrant)
      yield* etcd.lose(8080)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(etcd.claims(), ["tcp.8080.a", "tcp.9090.a"])
      assert.isTrue((yield* host.cluster().status).mayGrant)
    })
  )

  test(
    "does not take for its own what the watch has seen go since",
    Effect.gen(function* () {
      const etcd = yield* etcdOf
      const host = yield* makeHost("a")
      yield* TestClock.adjust("1 second")
      yield* host.map(at(8080))
      yield* host.kill
      // The proof's, which begins before the watch.
      etcd.strike("page", { replyDelay: half })
      yield* host.start
      yield* TestClock.adjust("100 millis")
      assert.isFalse((yield* host.cluster().status).mayGrant)
      yield* etcd.lose(8080)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(etcd.claims(), ["tcp.8080.a"])
      assert.isTrue((yield* host.cluster().status).mayGrant)
    })
  )
})

describe("a host", () => {
  test(
    "that is killed and started again within the TTL loses nothing, and claims nothing again",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      const before = yield* claimed
      yield* a.kill
      yield* TestClock.adjust("5 seconds")
      yield* a.start
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* claimed, before)
      assert.deepStrictEqual(
        (yield* a.listed).map((line) => line.split(" ")[1]),
        ["live", "live"]
      )
      yield* b.refused(group("8080", [other]))
    })
  )

  test(
    "gives back what a kill kept from the record",
    Effect.gen(function* () {
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.kill
      const host = yield* makeHost("a")
      yield* TestClock.adjust("1 second")
      yield* b.map(group("8080", [other]))
      yield* host.map(group("8081", [web]))
    })
  )

  test(
    "gives out no port of a block that the process before it may be giving back",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const ephemeral = { first: 40000, last: 40063 }
      const host = yield* makeHost("a", { ephemeral })
      yield* TestClock.adjust("1 second")
      const mapped = yield* Effect.forEach(Array.from({ length: 20 }), (_, number) =>
        host.map(group("0", [`tcp 0.0.0.0 172.17.0.${number}:80`]))
      )
      yield* TestClock.adjust("3 seconds")
      etcd.setFaults((_, operation) =>
        operation === "transact" ? { requestDelay: Duration.seconds(4) } : undefined
      )
      yield* Effect.forkChild(host.unmap(mapped.flat()))
      yield* TestClock.adjust("1500 millis")
      etcd.setFaults(() => undefined)
      yield* host.kill
      yield* host.start
      yield* TestClock.adjust("1 second")
      const [binding] = yield* host.map(group("0", [web]))
      const covering = Effect.map(claimed, (all) =>
        all.filter((each) => {
          const [, first, last] = /(\d+)-(\d+)$/.exec(each) ?? []
          return Number(first) <= Number(binding?.port) && Number(binding?.port) <= Number(last)
        })
      )
      const before = yield* covering
      assert.strictEqual(before.length, 1)
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* covering, before)
    })
  )

  test(
    "keeps the block of a port that a call has claimed for a service as well",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const host = yield* makeHost("a", { ephemeral: { first: 40000, last: 40063 } })
      yield* TestClock.adjust("1 second")
      const [binding] = yield* host.map(group("0", [web]))
      yield* host.map(group("8080", [other], { "portmapper.share": "web", "portmapper.mode": "proxy" }))
      const before = yield* claimed
      const [, value = ""] = etcd.entries().find(([key]) => key.endsWith("/tcp.8080.a")) ?? []
      yield* etcd.connection("a").transact({
        compare: [],
        success: [
          {
            _tag: "Put",
            key: `/portmapper/default/cells/0625/tcp.${binding?.port}.a`,
            value: value.replaceAll("8080", `${binding?.port}`),
            lease: "1"
          }
        ]
      })
      yield* host.kill
      yield* host.start
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* claimed, before)
    })
  )

  test(
    "gives back a claim of its own that it knows nothing of, since its answer came too late for a process that ended",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8081", [web]))
      const [, value = ""] = etcd.entries().find(([key]) => key.endsWith("/tcp.8081.a")) ?? []
      const key = "/portmapper/default/cells/0126/tcp.8080.a"
      yield* etcd.connection("a").transact({
        compare: [],
        success: [{ _tag: "Put", key, value: value.replaceAll("8081", "8080"), lease: "1" }]
      })
      yield* b.refused(group("8080", [other]))
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* claimed, ["a tcp 8081"])
      yield* b.map(group("8080", [other]))
    })
  )

  test(
    "tells etcd again what it serves after that was restored from an older backup",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      const backup = etcd.backup()
      yield* b.map(group("9090", [web]))
      yield* a.map(group("8081", [other]))
      yield* etcd.restore(backup)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* claimed).filter((each) => each.includes("tcp")).sort(), [
        "a tcp 8080",
        "a tcp 8081",
        "b tcp 9090"
      ])
    })
  )
})

/** What a host finds out about its claims holds also where one of them goes while it looks. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import { type Fault, MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { group } from "../support/groups.ts"
import { makeHost } from "./MemoryHosts.ts"

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
  it.effect("is made again where a claim goes after it was read", () =>
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
    }).pipe(Effect.scoped, Effect.provide(MemoryEtcd.layer))
  )

  it.effect("does not take for its own what the watch has seen go since", () =>
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
    }).pipe(Effect.scoped, Effect.provide(MemoryEtcd.layer))
  )
})

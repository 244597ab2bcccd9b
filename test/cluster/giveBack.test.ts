/** A claim that nothing needs any more goes back to the others, whatever was going on when its port was unmapped. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { group } from "../support/groups.ts"
import { makeHost } from "./MemoryHosts.ts"

const web = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])

const claims = Effect.map(MemoryEtcd, (etcd) =>
  etcd.entries().flatMap(([key]) => (key.includes("/cells/") ? [key.split("/").at(-1)] : []))
)

describe("the claim of a port that is unmapped", () => {
  it.effect("is given back while its mapping is in conflict with a process of its host", () =>
    Effect.gen(function* () {
      const host = yield* makeHost("a")
      const sockets = Context.get(host.kernel, MemoryHost)
      yield* TestClock.adjust("1 second")
      const bindings = yield* host.map(web)
      yield* host.kill
      sockets.take("tcp", addressUnsafe("0.0.0.0"), 8080)
      yield* host.start
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* claims, ["tcp.8080.a"])
      yield* host.unmap(bindings)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* claims, [])
    }).pipe(Effect.scoped, Effect.provide(MemoryEtcd.layer))
  )
})

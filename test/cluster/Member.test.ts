import { assert, describe } from "@effect/vitest"
import { Context, Effect } from "effect"
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
  within
} from "./MemoryHosts.ts"

describe("a host of a cluster", () => {
  test(
    "whose name another machine has grants nothing in the cluster",
    Effect.gen(function* () {
      yield* makeHost("a")
      const twin = yield* makeHost("a", { identity: "another machine" })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        yield* within(4000, twin.refused(group("8080", [web]))),
        "bind for 0.0.0.0:8080/tcp failed: the port can't be claimed in the cluster: another machine is host a of this cluster: give each its own --cluster-host"
      )
    })
  )

  test(
    "that is cut off serves on, refuses exact ports within three seconds, and grants ephemeral ones while its lease lives",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      etcd.cut("a")
      const refused = (asked: Parameters<Host["refused"]>[0]) => within(3001, a.refused(asked))
      assert.strictEqual(
        yield* refused(group("8081", [web])),
        "bind for 0.0.0.0:8081/tcp failed: the port can't be claimed in the cluster: etcd at memory for a: no answer"
      )
      yield* a.map(group("0", ["tcp 0.0.0.0 172.17.0.4:80"]))
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual((yield* a.listed).length, 3)
      assert.match(
        yield* refused(group("0", ["tcp 0.0.0.0 172.17.0.5:80"])),
        /can't be claimed in the cluster: etcd at memory for a: no answer$/
      )
      // What is mapped is answered as before.
      yield* a.map(group("8080", [web]))
      yield* b.map(group("8080", [other]))
      etcd.mend("a")
      yield* TestClock.adjust("10 seconds")
      const listed = yield* a.listed
      assert.strictEqual(
        listed.find((line) => line.includes(":8080")),
        `0.0.0.0:8080 conflicted, ${refusedBy("held by host b for 172.17.0.3:80, owner engine")}`
      )
      assert.strictEqual(listed.filter((line) => line.endsWith(" live")).length, 2)
    })
  )

  test(
    "that is cut off unmaps within a second, and gives the port back once it can",
    Effect.gen(function* () {
      const etcd = yield* MemoryEtcd
      const [a, b] = yield* two
      const bindings = yield* a.map(group("8080", [web]))
      etcd.cut("a")
      yield* within(1001, a.unmap(bindings))
      assert.deepStrictEqual(yield* a.rules, [])
      assert.strictEqual(
        yield* b.refused(group("8080", [other])),
        refusedBy("held by host a for 172.17.0.2:80, owner engine")
      )
      etcd.mend("a")
      yield* TestClock.adjust("10 seconds")
      yield* b.map(group("8080", [other]))
    })
  )

  test(
    "gives back the claim of a port that is unmapped while its mapping is in conflict with a process of its host",
    Effect.gen(function* () {
      const host = yield* makeHost("a")
      const sockets = Context.get(host.kernel, MemoryHost)
      yield* TestClock.adjust("1 second")
      const bindings = yield* host.map(group("8080", [web]))
      yield* host.kill
      sockets.take("tcp", addressUnsafe("0.0.0.0"), 8080)
      yield* host.start
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* claimed, ["a tcp 8080"])
      yield* host.unmap(bindings)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* claimed, [])
    })
  )
})

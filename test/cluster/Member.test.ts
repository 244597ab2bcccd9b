import { assert, describe } from "@effect/vitest"
import { Context, Effect, Fiber, Queue, Result } from "effect"
import { TestClock } from "effect/testing"
import { claimOf, excluderOf, portClaim } from "../../src/cluster/Cells.ts"
import type { CellState } from "../../src/cluster/ClusterState.ts"
import { claimIn, giveBack, ungranted, untilGranting, whyNot } from "../../src/cluster/Member.ts"
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
import { look, memberOf, pass } from "./twoStores.ts"

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

const claimant = { owner: "engine", backend: "172.17.0.2:80", container: undefined, service: undefined }

describe("a claim of a member", () => {
  const cell = "0125"
  const port = { protocol: "tcp", port: 8000, claimant } as const
  /** Claims the port unless another host has it; returns what it saw at each decision, and the revisions of its claims. */
  const claim = Effect.fnUntraced(function* ({
    member,
    session
  }: Effect.Success<ReturnType<typeof memberOf>>) {
    const seen: Array<string> = []
    const held: Array<number> = []
    const decide = (state: CellState) => {
      seen.push(state.claims.map(({ host }) => host).join())
      const excluder = excluderOf(state, member.options.host, port)
      return excluder === undefined
        ? Effect.succeed([claimOf(member.options.host, portClaim(port, port.claimant, 0))])
        : Effect.fail(`${excluder.host} has it`)
    }
    const result = yield* Effect.result(
      claimIn(member, session, cell, decide, (claims) => held.push(...claims.map(({ revision }) => revision)))
    )
    return { seen, held, refused: Result.getOrUndefined(Result.flip(result)) }
  })

  test(
    "is decided anew where another host has claimed in the cell meanwhile",
    Effect.gen(function* () {
      const [a, b] = [yield* memberOf("a"), yield* memberOf("b")]
      const first = yield* claim(a)
      assert.deepStrictEqual([first.seen, first.held.length], [[""], 1])
      assert.deepStrictEqual(yield* claim(b), { seen: ["", "a"], held: [], refused: "a has it" })
    })
  )

  test(
    "is refused on the cell as it is now alone",
    Effect.gen(function* () {
      const [a, b] = [yield* memberOf("a"), yield* memberOf("b")]
      yield* claim(a)
      yield* look(b.member)
      yield* a.member.store.release(a.member.replica.cell(cell).claims)
      const { seen, held, refused } = yield* claim(b)
      assert.deepStrictEqual([seen, held.length, refused], [["a", ""], 1, undefined])
    })
  )

  test(
    "is made anew where the host has one that it knows nothing of",
    Effect.gen(function* () {
      const a = yield* memberOf("a")
      const stray = (yield* claim(a)).held
      const { seen, held } = yield* claim(a)
      assert.deepStrictEqual(seen, ["a", "a", "a", ""])
      assert.isAbove(Number(held[0]), Number(stray[0]))
    })
  )
})

describe("what a member owes", () => {
  test(
    "stays owed where etcd could not be reached, and is given back once",
    Effect.gen(function* () {
      const memory = yield* MemoryEtcd
      const { member, session } = yield* memberOf("a")
      const claims = [{ name: "tcp.8000.a", value: "" }]
      const { state } = yield* member.store.claim(session, { cell: "0125", revision: 0 }, claims)
      member.ledger.owe(state.claims)
      memory.cut("a")
      const failed = yield* Effect.forkChild(Effect.flip(giveBack(member)))
      yield* pass(3)
      assert.strictEqual((yield* Fiber.join(failed)).message, "etcd at memory for a: no answer")
      assert.deepStrictEqual(
        [member.ledger.returning.length, member.trouble],
        [1, "etcd at memory for a: no answer"]
      )
      memory.mend("a")
      yield* giveBack(member)
      assert.deepStrictEqual([member.ledger.returning.length, member.trouble], [0, undefined])
      assert.deepStrictEqual((yield* member.store.readCell("0125")).claims, [])
    })
  )
})

describe("a call that waits until a member may grant", () => {
  test(
    "asks for a renewal, and goes on with it",
    Effect.gen(function* () {
      const { member, session } = yield* memberOf("a")
      assert.deepStrictEqual(yield* untilGranting(member), session)
      yield* pass(27)
      assert.strictEqual(whyNot(member), "this host's lease may have ended")
      const waiting = yield* Effect.forkChild(untilGranting(member))
      yield* Queue.take(member.renewal)
      member.span = yield* member.store.renew(session)
      yield* member.granting.open
      assert.deepStrictEqual(yield* Fiber.join(waiting), session)
    })
  )

  test(
    "fails at once where the store has failed and is not heard of since",
    Effect.gen(function* () {
      const { member } = yield* memberOf("a")
      member.trouble = "etcd: no answer"
      // While it is still heard, its lease is what counts.
      assert.isTrue(Result.isSuccess(yield* Effect.result(untilGranting(member))))
      member.interruptedMillis = 0
      assert.deepStrictEqual(yield* Effect.flip(untilGranting(member)), ungranted("etcd: no answer"))
    })
  )

  test(
    "fails with what the store failed with, else with the first thing that is missing",
    Effect.gen(function* () {
      const { member } = yield* memberOf("a")
      member.isProven = false
      assert.strictEqual(whyNot(member), "this host does not know yet which ports are still its own")
      member.session = undefined
      assert.strictEqual(whyNot(member), "this host has not joined it yet")
      member.trouble = "etcd: no answer"
      assert.strictEqual(whyNot(member), "etcd: no answer")
    })
  )
})

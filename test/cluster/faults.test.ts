/** What a `ClusterStore` promises where requests and replies are lost, late, or of another history; on a clock of the test. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Queue, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ClusterEvent } from "../../src/cluster/ClusterState.ts"
import type { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { type Fault, MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { storeFor } from "../support/cluster.ts"
import { liveThroughFaults } from "./anyFaults.ts"

type Memory = MemoryEtcd["Service"]

const ttl = Duration.seconds(30)
const unclaimed = { cell: "125", revision: 0 }
const web = [{ name: "8080", value: "web" }]

/** Hosts `a` and `b`, each with a session and a connection of its own. */
const twoHosts = Effect.gen(function* () {
  const memory = yield* MemoryEtcd
  const host = Effect.fnUntraced(function* (name: string) {
    const store = yield* storeFor(memory, name)
    const { session } = yield* store.open({ host: name, identity: name, ttl })
    const claim = (seen: { readonly cell: string; readonly revision: number } = unclaimed) =>
      store.claim(session, seen, web)
    return { store, session, claim }
  })
  return { memory, a: yield* host("a"), b: yield* host("b") }
})

const test = (title: string, run: Effect.Effect<void, unknown, MemoryEtcd | Scope.Scope>) =>
  it.effect(title, () => Effect.provide(run, MemoryEtcd.layer))

/** The next requests of a host meet these faults, one each; what follows meets none. */
const faults = (memory: Memory, host: string, ...next: ReadonlyArray<Fault>) => {
  const left = [...next]
  memory.setFaults((from, operation) =>
    from === host && operation === "transact" ? left.shift() : undefined
  )
}

/** Lets everything happen that the next `seconds` bring. */
const pass = (seconds: number) => TestClock.adjust(Duration.seconds(seconds))

const claims = (memory: Memory) =>
  memory
    .entries()
    .flatMap(([key, value]) => (key.includes("/cells/") ? [`${key.split("/").at(-1)}: ${value}`] : []))

const lostReply: Fault = { lose: "reply" }
const lostRequest: Fault = { lose: "request" }

describe("a claim", () => {
  test(
    "whose reply is lost is held, and answered as such",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", lostReply)
      const claim = yield* Effect.forkChild(a.claim())
      yield* pass(2)
      assert.strictEqual((yield* Fiber.join(claim))._tag, "Claimed")
      assert.deepStrictEqual(claims(memory), ["8080: a web"])
    })
  )

  test(
    "that never arrives fails in time with the reason, and is made by nobody later",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      memory.cut("a")
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(3)
      const error = yield* Fiber.join(claim)
      assert.strictEqual(error.message, "etcd at memory for a: no answer")
      memory.mend("a")
      yield* pass(3)
      assert.deepStrictEqual(claims(memory), [])
      const seen = yield* b.store.readCell("125")
      assert.strictEqual((yield* b.claim(seen))._tag, "Claimed")
    })
  )

  test(
    "that was made without its caller knowing is given back once etcd can be reached",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", lostReply, ...Array.from({ length: 20 }, () => lostRequest))
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(3)
      assert.include(yield* Fiber.join(claim), { _tag: "ClusterError", mayBeDone: true })
      assert.deepStrictEqual(claims(memory), ["8080: a web"])
      memory.setFaults(() => undefined)
      yield* pass(5)
      assert.deepStrictEqual(claims(memory), [])
    })
  )

  test(
    "that arrives after its caller gave up does nothing once its cell has been settled",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const late: Fault = { requestDelay: Duration.seconds(20) }
      faults(memory, "a", late, late, late)
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(3)
      yield* Fiber.join(claim)
      yield* pass(3)
      const seen = yield* b.store.readCell("125")
      assert.isAbove(seen.revision, 0)
      yield* pass(20)
      assert.deepStrictEqual(claims(memory), [])
      assert.strictEqual((yield* b.claim(seen))._tag, "Claimed")
      assert.deepStrictEqual(claims(memory), ["8080: b web"])
    })
  )

  test(
    "is settled before another one in its cell is made",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", lostReply, lostRequest, lostRequest)
      const first = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(2.5)
      yield* Fiber.join(first)
      memory.setFaults(() => undefined)
      const seen = yield* a.store.readCell("125")
      assert.strictEqual(seen.claims.length, 1)
      const second = yield* a.store.claim(a.session, seen, [{ name: "8081", value: "db" }])
      assert.deepStrictEqual(claims(memory), ["8081: a db"])
      assert.strictEqual(second._tag, "Claimed")
    })
  )

  test(
    "that waits for another one to be settled fails in time with the reason, too",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      memory.cut("a")
      for (let attempt = 0; attempt < 3; attempt++) {
        const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
        yield* pass(3)
        assert.strictEqual((yield* Fiber.join(claim)).message, "etcd at memory for a: no answer")
      }
    })
  )

  test(
    "that is interrupted on its way is given back",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      faults(memory, "a", { requestDelay: Duration.millis(500) })
      const claim = yield* Effect.forkChild(a.claim())
      yield* pass(0.1)
      yield* Fiber.interrupt(claim)
      yield* pass(5)
      assert.deepStrictEqual(claims(memory), [])
    })
  )

  test(
    "on a lease that ended on its way is refused",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      yield* pass(29.5)
      faults(memory, "a", { requestDelay: Duration.millis(800) })
      const claim = yield* Effect.forkChild(Effect.flip(a.claim()))
      yield* pass(1)
      assert.strictEqual((yield* Fiber.join(claim))._tag, "LeaseLost")
      assert.deepStrictEqual(claims(memory), [])
    })
  )
})

describe("a host", () => {
  test(
    "leaves and comes back where every first reply is lost",
    Effect.gen(function* () {
      const { memory, a } = yield* twoHosts
      const { state } = yield* a.claim()
      let isLost = false
      memory.setFaults((host) => {
        isLost = host === "a" && !isLost
        return isLost ? lostReply : undefined
      })
      const left = yield* Effect.forkChild(a.store.leave(a.session, Duration.minutes(10)))
      yield* pass(60)
      yield* Fiber.join(left)
      const back = yield* Effect.forkChild(a.store.open({ host: "a", identity: "a", ttl }))
      yield* pass(25)
      const { session } = yield* Fiber.join(back)
      memory.setFaults(() => undefined)
      const cell = yield* a.store.readCell("125")
      assert.deepStrictEqual(
        cell.claims,
        state.claims.map((claim) => ({ ...claim, lease: session.lease }))
      )
    })
  )
})

describe("a watch", () => {
  const watching = Effect.fnUntraced(function* (store: ClusterStore["Service"]) {
    const events = yield* Queue.unbounded<ClusterEvent>()
    yield* Effect.forkChild(Stream.runForEach(store.watch, (event) => Queue.offer(events, event)))
    yield* pass(0)
    /** Those since the last call, without changes of nothing. */
    return Effect.map(Queue.clear(events), (seen) =>
      seen.filter((event) => event._tag !== "Changed" || event.changes.length > 0)
    )
  })

  test(
    "that was cut off goes on with what it missed",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const seen = yield* watching(a.store)
      assert.deepStrictEqual(
        (yield* seen).map(({ _tag }) => _tag),
        ["Snapshot"]
      )
      memory.cut("a")
      yield* b.claim()
      yield* pass(10)
      const meanwhile = (yield* seen).map(({ _tag }) => _tag)
      assert.deepStrictEqual([...new Set(meanwhile)], ["Interrupted"])
      memory.mend("a")
      yield* pass(10)
      assert.deepStrictEqual(
        (yield* seen).flatMap((event) =>
          event._tag === "Changed" ? event.changes.map(({ _tag }) => _tag) : []
        ),
        ["CellMoved", "Claimed"]
      )
    })
  )

  test(
    "whose changes were compacted meanwhile shows everything again",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const seen = yield* watching(a.store)
      yield* seen
      memory.cut("a")
      yield* b.claim()
      memory.compact()
      yield* pass(10)
      memory.mend("a")
      yield* pass(10)
      const last = (yield* seen).at(-1)
      assert.deepStrictEqual(last, yield* a.store.readAll)
    })
  )

  test(
    "shows everything again after a backup, also where its revision was reached anew",
    Effect.gen(function* () {
      const { memory, a, b } = yield* twoHosts
      const seen = yield* watching(a.store)
      const backup = memory.backup()
      yield* a.claim()
      yield* pass(0)
      assert.deepStrictEqual(
        (yield* seen).map(({ _tag }) => _tag),
        ["Snapshot", "Changed"]
      )
      memory.cut("a")
      yield* memory.restore(backup)
      for (let revision = 0; revision < 5; revision++) yield* b.claim({ cell: String(revision), revision: 0 })
      memory.mend("a")
      yield* pass(10)
      const events = yield* seen
      assert.deepStrictEqual(events.at(-1), yield* a.store.readAll)
      assert.deepStrictEqual(claims(memory), Array(5).fill("8080: b web"))
    })
  )
})

liveThroughFaults(0, 30)

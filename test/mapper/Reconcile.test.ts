import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { type Change, Firewall, FirewallError, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { MappingStore, StoreError } from "../../src/mapper/MappingStore.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { map, unmapGroup } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { flushed, type Life, type MapperLife, makeLives, nothing, snapshot } from "../support/lives.ts"

const web = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])
const dns = group("5353", ["udp 0.0.0.0 172.17.0.2:53"])
const unmapWeb = unmapGroup(web)

/** Which calls of the firewall and the store fail, and when: the change is made all the same where `late`. */
interface Failing {
  check?: "early" | undefined
  apply?: (change: Change) => "early" | "late" | undefined
  put?: (state: string) => "early" | "late" | undefined
  remove?: "early" | "late" | undefined
}

const failing = <E>(call: Effect.Effect<void, E>, when: "early" | "late" | undefined, error: E) => {
  if (when === undefined) return call
  return when === "early" ? Effect.fail(error) : Effect.andThen(call, Effect.fail(error))
}

const firewallError = new FirewallError({ reason: "Busy", operation: "changing", detail: "no buffers" })
const storeError = new StoreError({ reason: "Failed", operation: "recording", detail: "disk I/O error" })

const failingFirewall =
  (fail: Failing) =>
  (firewall: Firewall["Service"]): Firewall["Service"] => ({
    ...firewall,
    check: Effect.suspend(() => failing(firewall.check, fail.check, firewallError)),
    apply: (change) =>
      Effect.suspend(() => failing(firewall.apply(change), fail.apply?.(change), firewallError))
  })

const failingStore =
  (fail: Failing) =>
  (store: MappingStore["Service"]): MappingStore["Service"] => ({
    ...store,
    put: (records) =>
      Effect.suspend(() => failing(store.put(records), fail.put?.(records[0]?.state ?? ""), storeError)),
    remove: (mappings, instead) =>
      Effect.suspend(() => failing(store.remove(mappings, instead), fail.remove, storeError))
  })

/** A running mapper, with its log lines. */
const life = (use: (fail: Failing, lines: Array<string>) => Effect.Effect<void, unknown, Life>) =>
  Effect.gen(function* () {
    const { mapperLife } = yield* makeLives
    const fail: Failing = {}
    const lines: Array<string> = []
    const mapper = PortMapper.layer.pipe(
      Layer.updateService(Firewall, failingFirewall(fail)),
      Layer.updateService(MappingStore, failingStore(fail))
    )
    const living: Effect.Effect<void, unknown, MapperLife> = Effect.scoped(
      Effect.flatMap(Layer.build(mapper), (driver) => Effect.provideContext(use(fail, lines), driver))
    )
    yield* mapperLife(living).pipe(
      Effect.provide(
        Logger.layer([Logger.make(({ message }) => void lines.push([message].flat().join(" ")))])
      )
    )
  })

const nextLook = TestClock.adjust("100 millis")

describe("a change of the kernel's table that is made, but reported as failed", () => {
  it.effect("of a mapping is rolled back by the next reconciliation, and logged once", () =>
    life((fail, lines) =>
      Effect.gen(function* () {
        yield* map(dns)
        fail.apply = ({ add }) => (add.length > 0 ? "late" : undefined)
        const error = yield* Effect.flip(map(web))
        assert.strictEqual(error.message, "changing failed: no buffers")
        assert.strictEqual((yield* snapshot).rules.length, 2)
        yield* nextLook
        const after = yield* snapshot
        assert.deepStrictEqual(after.rules, ["Redirect 0.0.0.0:5353/udp -> 172.17.0.2:53"])
        assert.deepStrictEqual(after.stored, ["0.0.0.0:5353/udp -> 172.17.0.2:53 answered"])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(lines, ["a change of the table failed; put back with 1 mappings"])
      })
    )
  )

  it.effect("of an unmapping leaves the mapping as it was, redirected again by the next reconciliation", () =>
    life((fail) =>
      Effect.gen(function* () {
        yield* map(web)
        const before = yield* snapshot
        fail.apply = ({ remove }) => (remove.length > 0 ? "late" : undefined)
        const error = yield* Effect.flip(unmapWeb)
        assert.strictEqual(error.message, "unmapping 0.0.0.0:8080/tcp failed: changing failed: no buffers")
        assert.deepStrictEqual((yield* snapshot).rules, [])
        yield* nextLook
        assert.deepStrictEqual(yield* snapshot, before)
        delete fail.apply
        yield* unmapWeb
        assert.deepStrictEqual(yield* snapshot, nothing)
      })
    )
  )
})

describe("a rollback that fails", () => {
  it.effect("is completed by the next reconciliation, in the table and in the record", () =>
    life((fail) =>
      Effect.gen(function* () {
        fail.put = () => "late"
        fail.remove = "early"
        fail.apply = ({ remove }) => (remove.length > 0 ? "early" : undefined)
        const error = yield* Effect.flip(map(web))
        assert.strictEqual(error.message, "recording failed: disk I/O error")
        const left = yield* snapshot
        assert.deepStrictEqual([left.rules.length, left.stored.length, left.sockets.length], [1, 1, 0])
        delete fail.put
        delete fail.remove
        yield* nextLook
        assert.deepStrictEqual(yield* snapshot, nothing)
      })
    )
  )
})

describe("a change of the record that fails", () => {
  it.effect("of an answer is repeated by the next reconciliation", () =>
    life((fail, lines) =>
      Effect.gen(function* () {
        fail.put = (state) => (state === "applied" ? "late" : undefined)
        yield* Effect.flip(map(dns))
        fail.put = (state) => (state === "answered" ? "early" : undefined)
        yield* map(web)
        delete fail.put
        yield* nextLook
        const { stored, listed } = yield* snapshot
        assert.deepStrictEqual(stored, ["0.0.0.0:8080/tcp -> 172.17.0.2:80 answered"])
        assert.deepStrictEqual(listed, ["0.0.0.0 8080 engine live"])
        assert.deepStrictEqual(lines, [
          "recording the answer: recording failed: disk I/O error",
          "a change of the record failed; the record is repaired"
        ])
      })
    )
  )

  it.effect("of a removal keeps the mapping, which is in the record at once", () =>
    life((fail) =>
      Effect.gen(function* () {
        yield* map(web)
        const before = yield* snapshot
        fail.remove = "late"
        const error = yield* Effect.flip(unmapWeb)
        assert.strictEqual(
          error.message,
          "unmapping 0.0.0.0:8080/tcp failed: recording failed: disk I/O error"
        )
        assert.deepStrictEqual(yield* snapshot, before)
      })
    )
  )

  it.effect("for as long as the disk fails is logged once, and repeated when the disk works again", () =>
    life((fail, lines) =>
      Effect.gen(function* () {
        fail.put = (state) => (state === "answered" ? "early" : undefined)
        yield* map(web)
        lines.length = 0
        fail.remove = "late"
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(lines, ["a change of the record failed, and recording failed: disk I/O error"])
        delete fail.remove
        delete fail.put
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(lines.slice(1), ["a change of the record failed; the record is repaired"])
      })
    )
  )
})

describe("a read of the table that fails", () => {
  it.effect("is logged once as long as it does", () =>
    life((fail, lines) =>
      Effect.gen(function* () {
        fail.check = "early"
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(lines, ["changing failed: no buffers"])
        delete fail.check
        yield* TestClock.adjust("2 seconds")
        fail.check = "early"
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(lines.length, 2)
      })
    )
  )
})

describe("a table that another process emptied", () => {
  it.effect("is as before at the next reconciliation, and at once where a call is answered again", () =>
    life((_, lines) =>
      Effect.gen(function* () {
        yield* map(web)
        yield* map(dns)
        const before = yield* snapshot
        const firewall = yield* MemoryFirewall
        firewall.flushElements()
        yield* nextLook
        assert.deepStrictEqual(yield* snapshot, before)
        firewall.flushElements()
        yield* map(web)
        assert.deepStrictEqual(yield* snapshot, before)
        const line = "someone changed the table; put back with 2 mappings"
        assert.deepStrictEqual(lines, [line, line])
      })
    )
  )
})

describe("a table that another process removed", () => {
  it.effect("is logged once as long as it can't be restored, and restored soon after it can", () =>
    life((_, lines) =>
      Effect.gen(function* () {
        yield* map(web)
        const before = yield* snapshot
        const once = yield* flushed
        const firewall = yield* MemoryFirewall
        firewall.flush()
        firewall.refuse(
          new FirewallError({ reason: "Denied", operation: "replacing", detail: "not permitted" })
        )
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(lines, ["someone removed the table, and replacing failed: not permitted"])
        firewall.refuse(undefined)
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* snapshot, before)
        // Flows that bypassed it meanwhile are redirected again.
        assert.deepStrictEqual(yield* flushed, [...once, ...once])
        assert.deepStrictEqual(lines.slice(1), ["someone removed the table; put back with 1 mappings"])
      })
    )
  )

  it.effect("is restored at once by the next mapping", () =>
    life(() =>
      Effect.gen(function* () {
        const firewall = yield* MemoryFirewall
        yield* map(web)
        firewall.flush()
        yield* map(dns)
        assert.deepStrictEqual((yield* snapshot).rules, [
          "Redirect 0.0.0.0:5353/udp -> 172.17.0.2:53",
          "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"
        ])
      })
    )
  )
})

/** One container in two networks, whose runtime asks for the same ports once for each attachment. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { mapperContext } from "../../src/mapper/MapperContext.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { retryConflicts } from "../../src/mapper/restore/Restore.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import type { Group, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { group } from "../support/groups.ts"
import { flushed, killedAt, makeLives, snapshot } from "../support/lives.ts"

const both = (container: string, labels: Record<string, string> = {}): Group =>
  group("8080", [`tcp 0.0.0.0 172.17.${container}:80`, `udp 0.0.0.0 172.17.${container}:80`], labels)
const first = both("0.2")
const second = both("1.2")
const third = both("2.2")
const [eth0, eth1, eth2] = ["cni:web/eth0", "cni:web/eth1", "cni:web/eth2"] as const

const as = (owner: string) => Effect.provideService(CurrentOwner, owner)
const map = (asked: Group, owner: string) =>
  Effect.scoped(Driver.use((driver) => driver.mapPorts(asked))).pipe(as(owner))
const refused = (asked: Group, owner: string) =>
  Effect.map(Effect.flip(map(asked, owner)), ({ message }) => message)
const unmap = ({ entries }: Group, backend: Partial<ReleasedBinding["backend"]> = {}) =>
  Driver.use((driver) =>
    driver.unmapPorts({
      bindings: entries.map((entry) => ({ ...entry, backend: { ...entry.backend, ...backend }, port: 8080 })),
      labels: new Map()
    })
  )

const listed = Effect.map(
  Driver.use((driver) => driver.listPorts ?? Effect.succeed([])),
  (mappings) =>
    mappings
      .filter(({ protocol }) => protocol === 6)
      .map(({ backendIp, owner, state }) => `${backendIp} ${owner} ${state}`)
      .sort()
)
const rules = MemoryFirewall.useSync((firewall) => firewall.rules())
const led = (container: string) => [
  `Redirect 0.0.0.0:8080/tcp -> 172.17.${container}:80`,
  `Redirect 0.0.0.0:8080/udp -> 172.17.${container}:80`
]

const failingAt = <A, E, R>(stop: number, effect: Effect.Effect<A, E, R>) => {
  let passed = 0
  return Effect.provideService(effect, Steps, (step) =>
    ++passed === stop ? Effect.fail(new InjectedFailure({ step })) : Effect.void
  )
}

describe("a second attachment of a container", () => {
  it.effect("is answered as the first one, stands by, and takes over in whatever order they end", () =>
    Effect.gen(function* () {
      const granted = yield* map(first, eth0)
      const asFirst = yield* map(second, eth1)
      assert.deepStrictEqual(
        asFirst.map(({ entry: { backend }, ...answer }) => [backend.address.text, answer]),
        granted.map(({ entry: _, ...answer }) => ["172.17.1.2", answer])
      )
      yield* map(second, eth1)
      yield* map(third, eth2)
      assert.deepStrictEqual(yield* listed, [
        `172.17.0.2 ${eth0} live`,
        `172.17.1.2 ${eth1} standby`,
        `172.17.2.2 ${eth2} standby`
      ])
      assert.deepStrictEqual(yield* rules, led("0.2"))

      yield* unmap(second)
      assert.deepStrictEqual(yield* listed, [`172.17.0.2 ${eth0} live`, `172.17.2.2 ${eth2} standby`])
      yield* map(second, eth1)
      yield* unmap(first)
      assert.deepStrictEqual(yield* listed, [`172.17.1.2 ${eth1} standby`, `172.17.2.2 ${eth2} live`])
      assert.deepStrictEqual(yield* rules, led("2.2"))
      assert.deepStrictEqual((yield* snapshotRoutes).length, 2)
      yield* map(first, eth0)
      yield* unmap(third)
      assert.deepStrictEqual(yield* rules, led("1.2"))
      yield* unmap(second)
      yield* unmap(first)
      assert.deepStrictEqual([yield* listed, yield* rules], [[], []])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.effect("is that of a container alone, and its frontends are in nobody else's way", () =>
    Effect.gen(function* () {
      yield* map(first, eth0)
      yield* map(second, eth1)
      for (const owner of ["cni:other/eth1", "engine", eth0, "watch:web/eth1"])
        assert.match(yield* refused(third, owner), /port is already allocated \(held by cni:web\/eth0 /)
      yield* unmap(first, { address: undefined })
      assert.deepStrictEqual([yield* listed, yield* rules], [[], []])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.effect("takes the new policy of a repeated request along when it takes over", () =>
    Effect.gen(function* () {
      yield* map(first, eth0)
      yield* map(second, eth1)
      yield* map(both("1.2", { "portmapper.allow": "10.0.0.0/8" }), eth1)
      assert.deepStrictEqual(yield* rules, led("0.2"))
      yield* unmap(first)
      assert.deepStrictEqual(
        yield* rules,
        led("1.2").map((rule) => `${rule} from 10.0.0.0/8`)
      )
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.effect("takes over where the answer to the first one is lost, and is forgotten where its own is", () =>
    Effect.gen(function* () {
      const answer = yield* Scope.make()
      const driver = yield* Driver
      yield* driver.mapPorts(first).pipe(Scope.provide(answer), as(eth0))
      yield* map(second, eth1)
      yield* Scope.close(answer, Exit.fail("lost"))
      assert.deepStrictEqual(yield* listed, [`172.17.1.2 ${eth1} live`])
      const own = yield* Scope.make()
      yield* driver.mapPorts(third).pipe(Scope.provide(own), as(eth2))
      yield* Scope.close(own, Exit.fail("lost"))
      assert.deepStrictEqual(yield* listed, [`172.17.1.2 ${eth1} live`])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.effect("takes over whole or not at all, whichever step fails", () =>
    Effect.gen(function* () {
      const sockets = yield* MemoryHost
      for (let stop = 1; ; stop++) {
        yield* map(first, eth0)
        yield* map(second, eth1)
        const open = sockets.open()
        const exit = yield* Effect.exit(failingAt(stop, unmap(first)))
        // The sockets stay open, so that no other process gets the port in between.
        assert.deepStrictEqual(sockets.open(), open)
        const [now = ""] = yield* listed
        assert.deepStrictEqual(yield* rules, led(now.startsWith("172.17.0.2") ? "0.2" : "1.2"))
        yield* unmap(first)
        assert.deepStrictEqual(yield* listed, [`172.17.1.2 ${eth1} live`])
        yield* unmap(second)
        if (Exit.isSuccess(exit) && stop > 8) break
      }
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.effect(
    "becomes the mapping of a frontend that its first attachment has given up for a mode without one",
    () =>
      Effect.gen(function* () {
        yield* map(first, eth0)
        yield* map(second, eth1)
        yield* map(both("0.2", { "portmapper.mode": "routed" }), eth0)
        yield* Effect.flatMap(mapperContext, retryConflicts)
        assert.deepStrictEqual(yield* rules, led("1.2"))
        yield* Driver.use((driver) =>
          driver.unmapPorts({
            bindings: first.entries.map((entry) => ({ ...entry, port: 0 })),
            labels: new Map()
          })
        )
        assert.deepStrictEqual(yield* listed, [`172.17.1.2 ${eth1} live`])
      }).pipe(Effect.provide(PortMapper.layerMemory()))
  )
})

describe("a standby and the end of the process", () => {
  it.effect("survives it, and takes over in the next one", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      const before = yield* life(
        Effect.gen(function* () {
          yield* map(first, eth0)
          yield* map(second, eth1)
          return yield* snapshot
        })
      )
      assert.deepStrictEqual(yield* life(snapshot), before)
      const after = yield* life(Effect.andThen(unmap(first), Effect.all({ listed, rules, flushed })))
      assert.deepStrictEqual([after.listed, after.rules], [[`172.17.1.2 ${eth1} live`], led("1.2")])
      assert.deepStrictEqual(yield* life(listed), after.listed)
      assert.deepStrictEqual(after.flushed.slice(-2), [
        "0.0.0.0:8080/tcp unless to 172.17.1.2:80",
        "0.0.0.0:8080/udp unless to 172.17.1.2:80"
      ])
    })
  )

  it.effect("is restored beside what the first one still has at another address", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      const wide = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])
      const narrow = group("8080", ["tcp 192.0.2.1 172.17.0.2:80"])
      const twice = { ...wide, entries: [...wide.entries, ...narrow.entries] }
      const before = yield* life(
        Effect.gen(function* () {
          yield* map(twice, eth0)
          yield* map(group("8080", ["tcp 0.0.0.0 172.17.1.2:80"]), eth1)
          yield* unmap(wide)
          return yield* listed
        })
      )
      assert.deepStrictEqual(before, [`172.17.0.2 ${eth0} live`, `172.17.1.2 ${eth1} live`])
      assert.deepStrictEqual(yield* life(listed), before)
    })
  )

  it.effect("has one of the two serving after a kill at any step of a takeover", () =>
    Effect.gen(function* () {
      for (let stop = 1; ; stop++) {
        const { life, kill } = yield* makeLives
        const stoppedAt = yield* life(
          Effect.gen(function* () {
            yield* map(first, eth0)
            yield* map(second, eth1)
            return yield* killedAt(stop, kill, unmap(first))
          })
        )
        const { listed: now, rules: there } = yield* life(Effect.all({ listed, rules }))
        assert.deepStrictEqual([now, there], [[`172.17.1.2 ${eth1} live`], led("1.2")], `killed at ${stop}`)
        if (stoppedAt === undefined) break
      }
    })
  )

  it.effect(
    "is in conflict with its first attachment where another process took the port, and yields with it",
    () =>
      Effect.gen(function* () {
        const { life, take, free } = yield* makeLives
        yield* life(Effect.andThen(map(first, eth0), map(second, eth1)))
        take("tcp 0.0.0.0 8080")
        take("udp 0.0.0.0 8080")
        yield* life(
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* listed, [
              `172.17.0.2 ${eth0} conflicted`,
              `172.17.1.2 ${eth1} conflicted`
            ])
            yield* unmap(first)
            assert.deepStrictEqual(yield* listed, [`172.17.1.2 ${eth1} conflicted`])
            yield* map(first, eth0).pipe(Effect.flip)
          })
        )
        free("tcp 0.0.0.0 8080")
        free("udp 0.0.0.0 8080")
        assert.deepStrictEqual(yield* life(Effect.all([listed, rules])), [
          [`172.17.1.2 ${eth1} live`],
          led("1.2")
        ])
      })
  )
})

const snapshotRoutes = Effect.map(snapshot, ({ routes }) => routes)

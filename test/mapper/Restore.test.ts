import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { type Firewall, FirewallError, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { LiveSessions, mapperContext } from "../../src/mapper/MapperContext.ts"
import { MappingStore, MemoryStore, StoreError } from "../../src/mapper/MappingStore.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { restore, retryConflicts } from "../../src/mapper/restore/Restore.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { HostSockets, MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { mapGroupsTogether } from "../../src/protocol/Operations.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { map, unmapGroup } from "../support/calls.ts"
import { everything, group } from "../support/groups.ts"
import { flushed, killedAt, makeLives, nothing, snapshot } from "../support/lives.ts"
import { mapping, records } from "../support/mappings.ts"

const refused = (asked: Group) => Effect.map(Effect.flip(map(asked)), ({ message }) => message)
/** Mapped, but killed before the answer was delivered. */
const mapUndelivered = (asked: Group, kill: Effect.Effect<void, never, Firewall>) =>
  Effect.scoped(
    Effect.andThen(
      Driver.use((driver) => driver.mapPorts(asked)),
      kill
    )
  )
const listed = Effect.map(snapshot, ({ listed: lines }) => lines)

const web = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])
const other = group("8080", ["tcp 0.0.0.0 172.17.0.3:80"])
/** The same for one port of several, of which 8080 is the first. */
const otherOfRange = group("8080-8089", ["tcp 0.0.0.0 172.17.0.3:80"])

describe("restore after a kill", () => {
  it.effect("undoes what sessions mapped, except those that live on", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      const as = (owner: string, port: string) =>
        Effect.provideService(map(group(port, ["tcp 0.0.0.0 172.17.0.2:80"])), CurrentOwner, owner)
      yield* life(
        Effect.all([
          as("session", "8080"),
          as("session:a", "8081"),
          as("session:b", "8082"),
          as("cli", "8083")
        ])
      )
      const passedOn = Effect.provideService(LiveSessions, new Set(["session:b"]))
      const after = yield* passedOn(life(snapshot))
      assert.deepStrictEqual(after.listed, ["0.0.0.0 8082 session:b live", "0.0.0.0 8083 cli live"])
      assert.deepStrictEqual([after.sockets.length, after.rules.length, after.stored.length], [2, 2, 2])
      assert.deepStrictEqual((yield* life(snapshot)).listed, ["0.0.0.0 8083 cli live"])
    })
  )

  it.effect("rolls back a call that the kill interrupted, at any step", () =>
    Effect.gen(function* () {
      const stops: Array<string> = []
      for (let stop = 1; ; stop++) {
        const { life, kill } = yield* makeLives
        const stoppedAt = yield* life(killedAt(stop, kill, map(everything)))
        if (stoppedAt === undefined) break
        stops.push(stoppedAt)
        const { after, flows } = yield* life(Effect.all({ after: snapshot, flows: flushed }))
        assert.deepStrictEqual(after, nothing, `killed at ${stop} ${stoppedAt}`)
        if (stops.includes("Conntrack.flush")) assert.deepStrictEqual(flows, ["0.0.0.0:8080/udp"])
      }
      assert.deepStrictEqual(
        [...new Set(stops)],
        ["HostSockets.open", "Firewall.apply", "Conntrack.flush", "Relay.open"]
      )
    })
  )

  it.effect("rolls back an interrupted call of several groups, all of them, and keeps earlier mappings", () =>
    Effect.gen(function* () {
      const stops: Array<string> = []
      const limited = { ...web, labels: new Map([["portmapper.allow", "10.0.0.0/8"]]) }
      const more = [
        limited,
        group("5353", ["udp 0.0.0.0 172.17.0.2:53"]),
        group("0", ["tcp :: 172.17.0.3:80"])
      ]
      for (let stop = 1; ; stop++) {
        const { life, kill } = yield* makeLives
        yield* life(map(web))
        const together = Effect.scoped(mapGroupsTogether(more))
        const stoppedAt = yield* life(killedAt(stop, kill, together))
        if (stoppedAt === undefined) break
        stops.push(stoppedAt)
        const after = yield* life(snapshot)
        assert.deepStrictEqual(after.listed, ["0.0.0.0 8080 engine live"], `killed at ${stop} ${stoppedAt}`)
        assert.deepStrictEqual([after.sockets.length, after.rules.length, after.stored.length], [1, 1, 1])
      }
      assert.deepStrictEqual(
        [...new Set(stops)],
        ["HostSockets.open", "Firewall.apply", "Conntrack.flush", "Relay.open"]
      )
      const { life, kill } = yield* makeLives
      yield* life(map(web))
      yield* life(Effect.scoped(Effect.andThen(mapGroupsTogether(more), kill)))
      assert.deepStrictEqual(yield* life(listed), [
        "0.0.0.0 5353 engine unconfirmed",
        "0.0.0.0 8080 engine live",
        ":: 40001 engine unconfirmed"
      ])
    })
  )

  it.effect("keeps possibly answered mappings as unconfirmed, until the same request confirms them", () =>
    Effect.gen(function* () {
      const { life, kill } = yield* makeLives
      yield* life(mapUndelivered(everything, kill))
      const unconfirmed = yield* life(snapshot)
      assert.isTrue(unconfirmed.listed.every((line) => line.endsWith(" unconfirmed")))
      assert.strictEqual(unconfirmed.rules.length, 4)
      yield* life(
        Effect.gen(function* () {
          yield* Effect.provideService(map(everything), CurrentOwner, "cli")
          assert.match(yield* refused(other), /port is already allocated \(held by cli/)
          assert.isTrue((yield* listed).every((line) => line.endsWith(" cli live")))
        })
      )
      assert.isTrue((yield* life(listed)).every((line) => line.endsWith(" cli live")))
    })
  )

  it.effect("does not treat a mapping whose answer is pending as unconfirmed", () =>
    Effect.gen(function* () {
      const { life, kill, take } = yield* makeLives
      yield* life(mapUndelivered(web, kill))
      take("tcp 0.0.0.0 8081")
      const range = group("8080-8081", ["tcp 0.0.0.0 172.17.0.4:80"])
      const together = (...groups: ReadonlyArray<Group>) =>
        Effect.map(Effect.flip(Effect.scoped(mapGroupsTogether(groups))), ({ message }) => message)
      yield* life(
        Effect.gen(function* () {
          const exhausted = "bind for 0.0.0.0:8080-8081/tcp failed: all ports are allocated in 8080-8081"
          assert.strictEqual(yield* together(web, range), `Groups[1]: ${exhausted}`)
          assert.strictEqual(yield* together(range, web), `Groups[0]: ${exhausted}`)
          // For the same port, and so one after the other.
          assert.match(yield* together(web, other), /^Groups\[1\]: .*: port is already allocated/)
          assert.deepStrictEqual(yield* listed, ["0.0.0.0 8080 engine unconfirmed"])
          yield* map(other)
          assert.deepStrictEqual(yield* listed, ["0.0.0.0 8080 engine live"])
        })
      )
    })
  )

  it.effect("reuses adopted sockets, also where one is wider than its mappings, and closes the others", () =>
    Effect.gen(function* () {
      const { life, mapperLife } = yield* makeLives
      yield* life(map(group("8080", ["tcp 10.99.0.1 172.17.0.2:80", "tcp 10.99.0.2 172.17.0.2:80"])))
      yield* mapperLife(
        Effect.gen(function* () {
          const sockets = yield* HostSockets
          const wide = yield* sockets.open("tcp", addressUnsafe("0.0.0.0"), 8080)
          const stray = yield* sockets.open("tcp", addressUnsafe("0.0.0.0"), 9090)
          yield* sockets.adopt([wide, stray])
          yield* Effect.scoped(
            Effect.gen(function* () {
              const driver = Context.get(yield* Layer.build(PortMapper.layer), Driver)
              assert.deepStrictEqual(yield* sockets.held, [wide])
              yield* Effect.provideService(
                unmapGroup(group("8080", ["tcp 10.99.0.1 172.17.0.2:80"])),
                Driver,
                driver
              )
              assert.deepStrictEqual(yield* sockets.held, [wide])
              yield* Effect.provideService(
                unmapGroup(group("8080", ["tcp 10.99.0.2 172.17.0.2:80"])),
                Driver,
                driver
              )
              assert.deepStrictEqual(yield* sockets.held, [])
            })
          )
        })
      )
    })
  )

  it.effect("keeps other modes as they were granted", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      yield* life(
        Effect.gen(function* () {
          yield* map(group("8080", ["tcp 0.0.0.0 172.17.0.2:80"], { "portmapper.mode": "engine" }))
          yield* map(group("8081", ["tcp 0.0.0.0 172.17.0.2:80"], { "portmapper.mode": "routed" }))
          yield* map(group("8082", ["tcp - 172.17.0.2:80"]))
        }),
        { defaultMode: "proxy" }
      )
      const after = yield* life(snapshot)
      assert.deepStrictEqual(after.routes, [
        "0.0.0.0:8080/tcp -> 172.17.0.2:80 admits loopback",
        "0.0.0.0:8082/tcp -> 172.17.0.2:80 admits everything"
      ])
      assert.deepStrictEqual(after.rules, [])
      assert.deepStrictEqual(after.listed, [
        "0.0.0.0 0 engine live",
        "0.0.0.0 8080 engine live",
        "0.0.0.0 8082 engine live"
      ])
    })
  )
})

describe("restore with a port taken meanwhile", () => {
  const why = "bind for 0.0.0.0:8080/tcp failed: address already in use"
  const pair = group("8080", ["tcp 0.0.0.0 172.17.0.2:80", "tcp :: 172.17.0.2:80"])

  const taken = Effect.gen(function* () {
    const lives = yield* makeLives
    yield* lives.life(map(pair))
    lives.take("tcp 0.0.0.0 8080")
    return lives
  })
  const recovered = Effect.flatMap(mapperContext, retryConflicts)
  const free = MemoryHost.useSync((host) => host.free("tcp", addressUnsafe("0.0.0.0"), 8080))
  const conflicted = ["0.0.0.0 8080 engine conflicted", ":: 8080 engine live"]
  const live = ["0.0.0.0 8080 engine live", ":: 8080 engine live"]

  it.effect("logs the conflict, keeps the mapping as conflicted, and serves the rest of its group", () =>
    Effect.gen(function* () {
      const { mapperLife, life } = yield* taken
      const restored = yield* mapperLife(restore)
      assert.deepStrictEqual(restored, {
        live: 1,
        unconfirmed: 0,
        conflicted: [`0.0.0.0:8080/tcp: ${why}`],
        undone: 0,
        lost: undefined
      })
      assert.deepStrictEqual(yield* life(snapshot), {
        sockets: ["[::]:8080/tcp"],
        rules: [],
        routes: ["[::]:8080/tcp -> 172.17.0.2:80 admits everything"],
        stored: ["0.0.0.0:8080/tcp -> 172.17.0.2:80 answered", "[::]:8080/tcp -> 172.17.0.2:80 answered"],
        listed: conflicted
      })
    })
  )

  it.effect("reactivates it at a retry at which the port is free", () =>
    Effect.gen(function* () {
      const { mapperLife } = yield* taken
      yield* mapperLife(
        Effect.gen(function* () {
          const before = yield* Effect.scoped(
            Effect.gen(function* () {
              const driver = yield* Layer.build(PortMapper.layer)
              assert.deepStrictEqual(yield* recovered, [])
              assert.deepStrictEqual(yield* Effect.provideContext(listed, driver), conflicted)
              yield* free
              assert.deepStrictEqual(yield* recovered, ["0.0.0.0:8080/tcp"])
              assert.deepStrictEqual(yield* recovered, [])
              return yield* Effect.provideContext(snapshot, driver)
            })
          )
          assert.deepStrictEqual(before.listed, live)
          assert.deepStrictEqual(before.rules, ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"])
          assert.strictEqual(before.routes.length, 2)
        })
      )
    })
  )

  it.effect("refuses the same request as long as the port is taken, and grants it afterwards", () =>
    Effect.gen(function* () {
      const { life } = yield* taken
      yield* life(
        Effect.gen(function* () {
          assert.strictEqual(yield* refused(pair), why)
          assert.deepStrictEqual(yield* listed, conflicted)
          yield* free
          yield* map(pair)
          assert.deepStrictEqual(yield* listed, live)
        })
      )
    })
  )

  const allocated = (frontend: string) =>
    new RegExp(
      `^bind for ${frontend}/tcp failed: port is already allocated \\(held by engine for 172.17.0.2 `
    )

  it.effect("serves it again, once the port is free, before another claim gets the port", () =>
    Effect.gen(function* () {
      for (const [claim, frontend] of [
        [other, "0.0.0.0:8080"],
        [group("8080", ["tcp 10.99.0.1 172.17.0.3:80"]), "10.99.0.1:8080"]
      ] as const) {
        const { life } = yield* taken
        const after = yield* life(
          Effect.gen(function* () {
            yield* free
            assert.match(yield* refused(claim), allocated(frontend))
            return yield* snapshot
          })
        )
        assert.deepStrictEqual(after.listed, live)
        assert.deepStrictEqual(after.rules, ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"])
        assert.deepStrictEqual(after.stored, [
          "0.0.0.0:8080/tcp -> 172.17.0.2:80 answered",
          "[::]:8080/tcp -> 172.17.0.2:80 answered"
        ])
      }
    })
  )

  it.effect("gives its port to another claim where it can't be served, but not to a claim that fails", () =>
    Effect.gen(function* () {
      const { life } = yield* taken
      const after = yield* life(
        Effect.gen(function* () {
          assert.strictEqual(yield* refused(other), why)
          yield* free
          // The conflicted mapping wants all addresses, the claim another one.
          const host = yield* MemoryHost
          host.take("tcp", addressUnsafe("127.0.0.1"), 8080)
          const narrow = group("8080", ["tcp 10.99.0.1 172.17.0.3:80"])
          const firewall = yield* MemoryFirewall
          firewall.refuse(new FirewallError({ reason: "Busy", operation: "change", detail: "no buffers" }))
          assert.strictEqual(yield* refused(narrow), "change failed: no buffers")
          firewall.refuse(undefined)
          assert.deepStrictEqual(yield* listed, conflicted)
          yield* map(narrow)
          return yield* snapshot
        })
      )
      assert.deepStrictEqual(after.listed, ["10.99.0.1 8080 engine live", ":: 8080 engine live"])
      assert.deepStrictEqual(after.stored, [
        "10.99.0.1:8080/tcp -> 172.17.0.3:80 answered",
        "[::]:8080/tcp -> 172.17.0.2:80 answered"
      ])
    })
  )

  it.effect("gives its port to another claim, also for a range, where no answer ever named it", () =>
    Effect.gen(function* () {
      for (const claim of [other, otherOfRange]) {
        const { life, kill, take } = yield* makeLives
        yield* life(mapUndelivered(web, kill))
        take("tcp 0.0.0.0 8080")
        const { stored } = yield* life(Effect.andThen(free, Effect.andThen(map(claim), snapshot)))
        assert.deepStrictEqual(stored, ["0.0.0.0:8080/tcp -> 172.17.0.3:80 answered"])
      }
    })
  )

  it.effect("keeps it through a kill at any step of the same request, with any labels", () =>
    Effect.gen(function* () {
      const limited = { ...pair, labels: new Map([["portmapper.allow", "10.0.0.0/8"]]) }
      const stops: Array<string> = []
      for (const request of [pair, limited])
        for (let stop = 1; ; stop++) {
          const { life, kill, free: freeHost } = yield* taken
          const stoppedAt = yield* life(Effect.andThen(free, killedAt(stop, kill, map(request))))
          if (stoppedAt === undefined) break
          freeHost("tcp 0.0.0.0 8080")
          stops.push(stoppedAt)
          assert.deepStrictEqual(yield* life(listed), live, `killed at ${stop} ${stoppedAt}`)
        }
      assert.includeMembers(stops, ["HostSockets.open", "Firewall.apply", "Relay.open"])
    })
  )

  it.effect(
    "keeps as conflicted what only a refusing relay serves, and goes on without the relay where the kernel redirects",
    () =>
      Effect.gen(function* () {
        const { life } = yield* makeLives
        yield* life(map(pair))
        const after = yield* life(snapshot).pipe(
          Effect.provideService(Steps, (step) =>
            step === "Relay.open" ? Effect.fail(new InjectedFailure({ step })) : Effect.void
          )
        )
        assert.deepStrictEqual(after.listed, ["0.0.0.0 8080 engine live", ":: 8080 engine conflicted"])
        assert.deepStrictEqual(after.sockets, ["0.0.0.0:8080/tcp"])
        assert.deepStrictEqual(yield* life(listed), live)
      })
  )

  it.effect("relays what only the kernel redirected, and serves the rest, once the relay accepts again", () =>
    Effect.gen(function* () {
      const { life, mapperLife } = yield* makeLives
      const before = yield* life(Effect.andThen(map(pair), snapshot))
      yield* mapperLife(
        Effect.scoped(
          Effect.gen(function* () {
            const refusing = (step: string) =>
              step === "Relay.open" ? Effect.fail(new InjectedFailure({ step })) : Effect.void
            const driver = yield* Effect.provideService(Layer.build(PortMapper.layer), Steps, refusing)
            assert.deepStrictEqual((yield* Effect.provideContext(snapshot, driver)).routes, [])
            assert.deepStrictEqual(yield* Effect.provideService(recovered, Steps, refusing), [])
            assert.deepStrictEqual(yield* recovered, ["0.0.0.0:8080/tcp", "[::]:8080/tcp"])
            assert.deepStrictEqual(yield* recovered, [])
            assert.deepStrictEqual(yield* Effect.provideContext(snapshot, driver), before)
          })
        )
      )
    })
  )
})

describe("restore with another failure", () => {
  /** The first sockets can't be opened, as where memory is short for a moment. */
  const failing = (count: number) => {
    let left = count
    return (step: string) =>
      step === "HostSockets.open" && left-- > 0 ? Effect.fail(new InjectedFailure({ step })) : Effect.void
  }

  it.effect("tries again at its end what failed", () =>
    Effect.gen(function* () {
      const { life, mapperLife } = yield* makeLives
      const before = yield* life(Effect.andThen(map(everything), snapshot))
      const restored = yield* mapperLife(Effect.provideService(restore, Steps, failing(1)))
      assert.deepStrictEqual([restored.live, restored.conflicted], [5, []])
      assert.deepStrictEqual(yield* life(snapshot), before)
    })
  )

  it.effect("keeps an answered mapping that failed twice from a claim that comes before its retry", () =>
    Effect.gen(function* () {
      const { life, mapperLife } = yield* makeLives
      yield* life(map(web))
      yield* mapperLife(
        Effect.scoped(
          Effect.gen(function* () {
            const driver = yield* Effect.provideService(Layer.build(PortMapper.layer), Steps, failing(2))
            yield* Effect.provideContext(
              Effect.gen(function* () {
                assert.deepStrictEqual(yield* listed, ["0.0.0.0 8080 engine conflicted"])
                assert.match(
                  yield* refused(other),
                  /port is already allocated \(held by engine for 172.17.0.2 /
                )
                assert.deepStrictEqual(yield* listed, ["0.0.0.0 8080 engine live"])
              }),
              driver
            )
          })
        )
      )
      assert.deepStrictEqual(yield* life(listed), ["0.0.0.0 8080 engine live"])
    })
  )

  it.effect("starts on a full disk", () =>
    Effect.gen(function* () {
      const store = yield* MappingStore
      yield* store.put(records([mapping("tcp 0.0.0.0 172.17.0.2:80", 8080)], "answered"))
      const memory = yield* MemoryStore
      memory.refuse(new StoreError({ reason: "Full", operation: "forgetting", detail: "no space left" }))
      const restored = yield* restore
      assert.deepStrictEqual([restored.live, restored.undone], [1, 0])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.effect("holds nothing where the kernel's table can't be loaded", () =>
    Effect.gen(function* () {
      const { life, mapperLife } = yield* makeLives
      yield* life(map(everything))
      yield* mapperLife(
        Effect.gen(function* () {
          const firewall = yield* MemoryFirewall
          firewall.refuse(
            new FirewallError({ reason: "Denied", operation: "replacing", detail: "not permitted" })
          )
          const error = yield* Effect.flip(restore)
          assert.strictEqual(error.message, "replacing failed: not permitted")
          const host = yield* MemoryHost
          assert.deepStrictEqual(host.open(), [])
        })
      )
      assert.strictEqual((yield* life(listed)).length, 5)
    })
  )
})

describe("the Engine's starts, over restarts of the mapper", () => {
  const activate = Driver.use((driver) => driver.activated ?? Effect.void)

  it.effect("are counted on, also where the mapper is killed before the first call that follows", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      yield* life(map(web))
      yield* life(activate)
      yield* life(map(group("8081", ["tcp 0.0.0.0 172.17.0.2:80"])))
      yield* life(
        Effect.gen(function* () {
          assert.match(yield* refused(other), /port is already allocated/)
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* listed, ["0.0.0.0 8080 engine stale", "0.0.0.0 8081 engine live"])
          yield* map(other)
        })
      )
    })
  )

  it.effect("let another claim, also for a range, have the port of a stale mapping in conflict", () =>
    Effect.gen(function* () {
      for (const claim of [other, otherOfRange]) {
        const { life, take } = yield* makeLives
        yield* life(map(web))
        take("tcp 0.0.0.0 8080")
        yield* life(
          Effect.gen(function* () {
            yield* activate
            yield* map(group("9090", ["tcp 0.0.0.0 172.17.0.2:80"]))
            yield* TestClock.adjust("1 minute")
            assert.deepStrictEqual(yield* listed, [
              "0.0.0.0 8080 engine conflicted",
              "0.0.0.0 9090 engine live"
            ])
            yield* MemoryHost.useSync((host) => host.free("tcp", addressUnsafe("0.0.0.0"), 8080))
            yield* map(claim)
            assert.deepStrictEqual(yield* listed, ["0.0.0.0 8080 engine live", "0.0.0.0 9090 engine live"])
          })
        )
      }
    })
  )
})

describe("restore of many", () => {
  it.effect("restores 10,000 mappings, and prints how long it took", () =>
    Effect.gen(function* () {
      const { life, mapperLife } = yield* makeLives
      yield* life(
        MappingStore.use((store) =>
          store.put(
            records(
              Array.from({ length: 5000 }, (_, index) =>
                ["0.0.0.0", "10.99.0.1"].map((host) =>
                  mapping(`tcp ${host} 172.17.${index % 200}.2:80`, 1024 + index)
                )
              ).flat(),
              "answered"
            )
          )
        )
      )
      const restored = yield* mapperLife(
        Effect.gen(function* () {
          const before = process.threadCpuUsage()
          const result = yield* restore
          const { user, system } = process.threadCpuUsage(before)
          return { ...result, millis: (user + system) / 1000 }
        })
      )
      console.log(`10,000 mappings restored in ${restored.millis.toFixed(0)} ms of processor time`)
      assert.strictEqual(restored.live, 10_000)
      assert.isBelow(restored.millis, 10_000)
    })
  )
})

import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import {
  listed,
  map,
  mapAndLose,
  mapAndTell,
  refused,
  testMapper as test,
  unmapGroup as unmap
} from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { makeLives } from "../support/lives.ts"
import { host, nothing, unmapAll } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const share = { "portmapper.share": "web" }
const replica = (number: number, labels: Record<string, string> = share, address = "0.0.0.0"): Group =>
  group("8080", [`tcp ${address} 172.17.0.${number}:80`], labels)

const rules = Effect.map(host, (held) => held.rules)
const rulesOfLife = Effect.map(MemoryFirewall, (firewall) => firewall.rules())
const states = Effect.map(listed, (all) =>
  all.map(({ backendIp, service, state }) => `${backendIp} ${service} ${state}`)
)

describe("a port shared by several backends", () => {
  test("is held by one socket, leads to all of them evenly, and to the last one alone", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 slots 0-63 of 64 by random"
      ])
      yield* map(replica(3))
      assert.deepStrictEqual(yield* host, {
        sockets: ["0.0.0.0:8080/tcp"],
        rules: [
          "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 slots 32-63 of 64 by random",
          "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-31 of 64 by random"
        ],
        routes: [
          "0.0.0.0:8080/tcp -> 172.17.0.2:80 slots 32-63 of 64 by random admits loopback",
          "0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-31 of 64 by random admits loopback"
        ],
        stored: ["0.0.0.0:8080 answered", "0.0.0.0:8080 answered"]
      })
      assert.deepStrictEqual(yield* states, ["172.17.0.2 web live", "172.17.0.3 web live"])
      yield* map(replica(3))
      yield* unmap(replica(2))
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-63 of 64 by random"
      ])
      yield* unmap(replica(3))
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("is refused to another service, to none, and to callers of another kind", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      const before = yield* host
      const held =
        /^PortAllocated: bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated \(held by engine for service web since \S+; if all of its containers are gone: portmapper unmap -p 0\.0\.0\.0:8080\/tcp --owner any\)$/
      for (const backend of [3, 2]) {
        for (const labels of [{}, { "portmapper.share": "api" }])
          assert.match(yield* refused(replica(backend, labels)), held)
        assert.match(yield* Effect.provideService(refused(replica(backend)), CurrentOwner, "cli"), held)
      }
      assert.deepStrictEqual(yield* host, before)
    }))

  test(
    "is the whole host's where the host allows the name",
    () =>
      Effect.gen(function* () {
        const all = { "portmapper.share": "/web" }
        yield* map(replica(2, all))
        yield* Effect.provideService(map(replica(3, all)), CurrentOwner, "cli")
        assert.deepStrictEqual(yield* states, ["172.17.0.2 /web live", "172.17.0.3 /web live"])
        assert.strictEqual(
          yield* refused(replica(4, { "portmapper.share": "/api" })),
          'RequestError: bad request: Labels["portmapper.share"] = "/api": must be a name of this host\'s `serve --shares` (web)'
        )
      }),
    { shares: ["web"] }
  )

  test("may be on several addresses, but not on one that covers a member's alone", () =>
    Effect.gen(function* () {
      const on = (number: number, ...addresses: ReadonlyArray<string>) =>
        group(
          "8080",
          addresses.map((address) => `tcp ${address} 172.17.0.${number}:80`),
          share
        )
      yield* map(on(2, "10.99.0.1"))
      assert.match(yield* refused(on(3, "0.0.0.0")), /port is already allocated/)
      yield* map(on(3, "10.99.0.1"))
      for (const number of [2, 3]) yield* unmap(on(number, "10.99.0.1"))
      for (const number of [2, 3]) yield* map(on(number, "0.0.0.0", "10.99.0.1"))
      assert.deepStrictEqual((yield* host).sockets, ["0.0.0.0:8080/tcp"])
      for (const number of [2, 3]) yield* unmap(on(number, "0.0.0.0", "10.99.0.1"))
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("needs an exact port, and a mode in which this plugin forwards", () =>
    Effect.gen(function* () {
      for (const [asked, why] of [
        [group("0", ["tcp 0.0.0.0 172.17.0.2:80"], share), /exact host port/],
        [group("80-90", ["tcp 0.0.0.0 172.17.0.2:80"], share), /exact host port/],
        [replica(2, { ...share, "portmapper.mode": "routed" }), /mode nat or proxy \(not routed\)/],
        [replica(2, { ...share, "portmapper.mode": "engine" }), /mode nat or proxy/],
        [replica(2, { "portmapper.balance": "source" }), /beside a portmapper\.share/],
        [replica(2, { ...share, "portmapper.balance": "even" }), /random or source/]
      ] as const)
        assert.match(yield* refused(asked), why)
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("has one policy: a backend that differs is refused with the label", () =>
    Effect.gen(function* () {
      yield* map(replica(2, { ...share, "portmapper.allow": "10.0.0.0/8", "portmapper.container": "a" }))
      const before = yield* host
      for (const [labels, why] of [
        [share, "portmapper.allow=10.0.0.0/8, like the others (not no portmapper.allow)"],
        [
          { ...share, "portmapper.allow": "10.0.0.0/8", "portmapper.balance": "source" },
          "no portmapper.balance, like the others (not portmapper.balance=source)"
        ],
        [
          { ...share, "portmapper.allow": "10.0.0.0/8", "portmapper.mode": "proxy" },
          "mode nat, like the others (not proxy)"
        ]
      ] as const)
        assert.strictEqual(
          yield* refused(replica(3, labels)),
          `ServiceRefused: bind for 0.0.0.0:8080/tcp failed: a backend of service web needs ${why}`
        )
      assert.deepStrictEqual(yield* host, before)
      yield* map(replica(3, { ...share, "portmapper.allow": "10.0.0.0/8", "portmapper.container": "b" }))
    }))

  test("takes a default that is written out for the same as none", () =>
    Effect.gen(function* () {
      const written = { ...share, "portmapper.balance": "random", "portmapper.mode": "auto" }
      yield* map(replica(2, written))
      yield* map(replica(3))
      yield* map(replica(4, written))
      assert.lengthOf(yield* states, 3)
      assert.match(
        yield* refused(replica(5, { ...written, "portmapper.balance": "source" })),
        /needs no portmapper\.balance, like the others \(not portmapper\.balance=source\)/
      )
    }))

  test("changes the balance of its only backend", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      yield* map(replica(2, { ...share, "portmapper.balance": "source" }))
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 slots 0-63 of 64 by source"
      ])
    }))

  test("keeps an allow-list of a relayed frontend until the last backend goes", () =>
    Effect.gen(function* () {
      const limited = { ...share, "portmapper.allow": "2001:db8::/32" }
      for (const number of [2, 3, 4]) yield* map(replica(number, limited, "::"))
      const limit = ["Limit [::]:8080/tcp from 2001:db8::/32"]
      assert.deepStrictEqual(yield* rules, limit)
      for (const number of [2, 4]) {
        yield* unmap(replica(number, limited, "::"))
        assert.deepStrictEqual(yield* rules, limit)
      }
      yield* unmap(replica(3, limited, "::"))
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("is as before when a backend's joining fails or is interrupted at any step", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      yield* map(replica(3))
      const before = yield* host
      const steps = yield* atEveryStep(
        mapAndTell(replica(4)),
        (how, step) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* host, before, `${how} at ${step}`)
          }),
        Effect.andThen(unmapAll, Effect.andThen(map(replica(2)), map(replica(3))))
      )
      assert.includeMembers(steps as Array<string>, ["Firewall.apply", "Relay.open", "MappingStore.put"])
    }))

  test("gives the slots back when the newcomer's answer is lost", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      const before = yield* host
      yield* mapAndLose(replica(3))
      assert.deepStrictEqual(yield* host, before)
    }))

  test("gives no slots to a backend that it evicts for its new one", () =>
    Effect.gen(function* () {
      const { activated = Effect.void } = yield* Driver
      yield* map(replica(2))
      yield* activated
      yield* map(group("9000", ["tcp 0.0.0.0 172.17.0.9:80"]))
      yield* TestClock.adjust("61 seconds")
      yield* map(group("8080", ["tcp 0.0.0.0 172.17.0.3:80", "tcp 192.0.2.1 172.17.0.3:80"], share))
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-63 of 64 by random",
        "Redirect 0.0.0.0:9000/tcp -> 172.17.0.9:80",
        "Redirect 192.0.2.1:8080/tcp -> 172.17.0.3:80 slots 0-63 of 64 by random"
      ])
    }))

  test("is left by a backend that is mapped again without a host port", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      yield* map(replica(3))
      yield* map(replica(2, { "portmapper.mode": "routed" }))
      assert.deepStrictEqual(yield* rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-63 of 64 by random"
      ])
      for (const number of [2, 3]) yield* unmap(replica(number))
      assert.deepStrictEqual(yield* host, nothing)
    }))

  for (const by of ["a newcomer", "its last served backend"])
    it.effect(`drops a backend in conflict once ${by} gives it another policy`, () =>
      Effect.gen(function* () {
        const { life, take, free } = yield* makeLives
        const limited = { ...share, "portmapper.allow": "10.0.0.0/8" }
        const port = "tcp 0.0.0.0 8080"
        yield* life(Effect.andThen(map(replica(2)), map(replica(3))))
        take(port)
        yield* life(
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* states, ["172.17.0.2 web conflicted", "172.17.0.3 web conflicted"])
            const { free } = yield* MemoryHost
            for (const { protocol, host } of replica(3).entries) free(protocol, host, 8080)
            if (by !== "a newcomer") yield* map(replica(3))
            yield* map(replica(by === "a newcomer" ? 4 : 3, limited))
            yield* TestClock.adjust("2 seconds")
          })
        )
        free(port)
        const left = by === "a newcomer" ? 4 : 3
        assert.deepStrictEqual(yield* life(rulesOfLife), [
          `Redirect 0.0.0.0:8080/tcp -> 172.17.0.${left}:80 slots 0-63 of 64 by random from 10.0.0.0/8`
        ])
      })
    )

  it.effect("has the same slots after a kill", () =>
    Effect.gen(function* () {
      const { life } = yield* makeLives
      const before = yield* life(
        Effect.gen(function* () {
          for (const number of [2, 3, 4]) yield* map(replica(number))
          yield* unmap(replica(2))
          yield* map(replica(5))
          return yield* rulesOfLife
        })
      )
      assert.deepStrictEqual(yield* life(rulesOfLife), before)
    })
  )
})

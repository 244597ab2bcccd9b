import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { MemoryByteCounter } from "../../src/firewall/ByteCounter.ts"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { FirewallError, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { MemoryStore, StoreError } from "../../src/mapper/MappingStore.ts"
import type { Capabilities } from "../../src/mapper/Plan.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver, ListedOwner } from "../../src/protocol/Driver.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { bindingText, group, releaseOf } from "../support/groups.ts"
import { host, leavesNothing, type MemoryServices, nothing, unmapAll } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const map = (asked: Group) => Effect.scoped(Driver.use((driver) => driver.mapPorts(asked)))
/** Runs once the answer is delivered. */
const mapAndTell = (asked: Group) => (done: Effect.Effect<void>) =>
  Effect.scoped(
    Effect.tap(
      Driver.use((driver) => driver.mapPorts(asked)),
      done
    )
  )
const mapped = (asked: Group) => Effect.map(map(asked), (bindings) => bindings.map(bindingText))
const refused = (asked: Group) =>
  Effect.map(Effect.flip(map(asked)), ({ _tag, message }) => `${_tag}: ${message}`)
const unmap = (bindings: Parameters<typeof releaseOf>[0]) =>
  Driver.use((driver) => driver.unmapPorts(releaseOf(bindings)))

const test = (
  title: string,
  effect: () => Effect.Effect<void, unknown, MemoryServices>,
  capabilities: Partial<Capabilities> = {}
) => it.effect(title, () => Effect.provide(effect(), PortMapper.layerMemory(capabilities)))

const noRelay = { relayed: [] }
const web = "tcp 0.0.0.0 172.17.0.2:80"
const webBy6 = "tcp :: 172.17.0.2:80"

describe("mapPorts in nat mode", () => {
  test("reserves, redirects, relays from loopback and records a group of two families", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* mapped(group("8080", [web, "tcp :: [fd00::2]:80"])), [
        "0.0.0.0:8080/tcp -> 172.17.0.2:80, forward",
        "[::]:8080/tcp -> [fd00::2]:80, forward"
      ])
      assert.deepStrictEqual(yield* host, {
        sockets: ["0.0.0.0:8080/tcp", "[::]:8080/tcp"],
        rules: ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80", "Redirect [::]:8080/tcp -> [fd00::2]:80"],
        routes: [
          "0.0.0.0:8080/tcp -> 172.17.0.2:80 admits loopback",
          "[::]:8080/tcp -> [fd00::2]:80 admits loopback"
        ],
        stored: ["0.0.0.0:8080 answered", ":::8080 answered"]
      })
    }))

  test("leaves nothing after unmapping, binding by binding, and unmapping again succeeds", () =>
    Effect.gen(function* () {
      const bindings = yield* map(group("0", [web, "tcp 10.99.0.1 172.17.0.2:80", webBy6]))
      for (const binding of bindings) yield* unmap([binding])
      assert.deepStrictEqual(yield* host, nothing)
      yield* unmap(bindings)
    }))

  test("unmaps a frontend with any backend where the backend's address or port is left out", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      for (const named of [
        { address: undefined, port: 80 },
        { address: addressUnsafe("172.17.0.2"), port: 0 }
      ]) {
        const { bindings, labels } = releaseOf(yield* map(group("8080", [web])))
        yield* driver.unmapPorts({ bindings: bindings.map((each) => ({ ...each, backend: named })), labels })
        assert.deepStrictEqual(yield* host, nothing)
      }
    }))

  test("relays from IPv6 to IPv4, and guards ports published on a loopback address", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* mapped(group("8080", ["tcp 127.0.0.1 172.17.0.2:80", webBy6])), [
        "127.0.0.1:8080/tcp -> 172.17.0.2:80",
        "[::]:8080/tcp -> 172.17.0.2:80"
      ])
      const { rules, routes } = yield* host
      assert.deepStrictEqual(rules, ["Guard 127.0.0.1:8080/tcp"])
      assert.deepStrictEqual(routes, [
        "127.0.0.1:8080/tcp -> 172.17.0.2:80 admits everything",
        "[::]:8080/tcp -> 172.17.0.2:80 admits everything"
      ])
    }))

  test(
    "discards with the reason what only a relay could serve where there is none",
    () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* mapped(group("8080", [web, webBy6])), [
          "0.0.0.0:8080/tcp -> 172.17.0.2:80, forward",
          "[::]:8080/tcp -> 172.17.0.2:80, discarded: [::]/tcp to 172.17.0.2: the kernel redirects no IPv6 traffic to IPv4, and TCP is not relayed"
        ])
        assert.deepStrictEqual((yield* host).sockets, ["0.0.0.0:8080/tcp"])
        assert.strictEqual(
          yield* refused(group("8081", [webBy6])),
          "NothingServed: [::]/tcp to 172.17.0.2: the kernel redirects no IPv6 traffic to IPv4, and TCP is not relayed"
        )
      }),
    noRelay
  )

  test(
    "requests no forwarding from the Engine where redirected packets carry the accepted mark",
    () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* mapped(group("8080", [web])), ["0.0.0.0:8080/tcp -> 172.17.0.2:80"])
      }),
    { marksAccepted: true }
  )

  test("returns the same answer, and changes nothing, for an existing mapping", () =>
    Effect.gen(function* () {
      const first = yield* map(group("0", [web, webBy6], { l: "1" }))
      const before = yield* host
      const again = yield* map(group(`${first[0]?.port}`, [web, webBy6], { l: "1" }))
      assert.deepStrictEqual(again.map(bindingText), first.map(bindingText))
      assert.deepStrictEqual(yield* host, before)
    }))

  test("reads an IPv4-mapped source of the allow-list as the IPv4 one", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web], { "portmapper.allow": "::ffff:198.51.100.2,::ffff:10.0.0.0/104" }))
      assert.deepStrictEqual((yield* host).rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 from 198.51.100.2/32,10.0.0.0/8"
      ])
    }))

  test("replaces the policy when the same mapping is requested with other labels", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web], { "portmapper.allow": "10.0.0.0/8" }))
      assert.deepStrictEqual((yield* host).rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 from 10.0.0.0/8"
      ])
      yield* map(group("8080", [web], { "portmapper.mode": "proxy" }))
      assert.deepStrictEqual((yield* host).rules, [])
      assert.deepStrictEqual((yield* host).routes, ["0.0.0.0:8080/tcp -> 172.17.0.2:80 admits everything"])
    }))

  test("refuses a port of another mapping and one of another process, and leaves nothing", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web]))
      const before = yield* host
      const sockets = yield* MemoryHost
      sockets.take("tcp", addressUnsafe("::"), 8081)
      assert.match(
        yield* refused(group("8080", ["tcp 0.0.0.0 172.17.0.3:80"])),
        /^PortAllocated: bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated \(held by engine for 172\.17\.0\.2 port 80 since 1970-01-01T00:00:00\.000Z; if that container is gone: portmapper unmap -p 0\.0\.0\.0:8080\/tcp --owner any\)$/
      )
      assert.strictEqual(
        yield* refused(group("8081", ["tcp 0.0.0.0 172.17.0.3:80", "tcp :: 172.17.0.3:80"])),
        "BindFailed: bind for [::]:8081/tcp failed: address already in use"
      )
      assert.deepStrictEqual(yield* host, before)
    }))

  test("deletes flows to other backends than their mapping's, and those of a removed mapping", () =>
    Effect.gen(function* () {
      const conntrack = yield* MemoryConntrack
      let seen = 0
      const flushed = () => {
        const fresh = conntrack.flushed().slice(seen)
        seen += fresh.length
        return fresh
      }
      const dns = ["udp 0.0.0.0 172.17.0.2:53", "udp :: 172.17.0.2:53", "tcp 0.0.0.0 172.17.0.2:53"]
      const bindings = yield* map(group("53", dns))
      assert.deepStrictEqual(flushed(), [
        "0.0.0.0:53/udp unless to 172.17.0.2:53",
        "0.0.0.0:53/tcp unless to 172.17.0.2:53"
      ])
      yield* map(group("53", dns))
      assert.deepStrictEqual(flushed(), [])
      yield* map(group("53", dns, { "portmapper.allow": "10.0.0.0/8" }))
      assert.deepStrictEqual(flushed(), [
        "0.0.0.0:53/udp unless to 172.17.0.2:53 from 10.0.0.0/8",
        "[::]:53/udp",
        "0.0.0.0:53/tcp unless to 172.17.0.2:53 from 10.0.0.0/8",
        "0.0.0.0:53/udp unless to 172.17.0.2:53 from 10.0.0.0/8 and narrowed",
        "0.0.0.0:53/tcp unless to 172.17.0.2:53 from 10.0.0.0/8 and narrowed"
      ])
      yield* map(group("53", dns, { "portmapper.mode": "proxy" }))
      assert.deepStrictEqual(flushed(), ["0.0.0.0:53/udp"])
      yield* map(group("53", dns))
      flushed()
      yield* map(group("53", dns, { "portmapper.mode": "proxy", "portmapper.allow": "10.0.0.0/8" }))
      assert.deepStrictEqual(flushed(), [
        "0.0.0.0:53/udp",
        "0.0.0.0:53/udp unless to 172.17.0.2:53 from 10.0.0.0/8 and narrowed",
        "0.0.0.0:53/tcp unless to 172.17.0.2:53 from 10.0.0.0/8 and narrowed"
      ])
      yield* map(group("53", dns))
      flushed()
      yield* unmap(bindings)
      assert.deepStrictEqual(flushed(), ["0.0.0.0:53/udp"])
    }))

  test("deletes the flows that a failed change of policy admitted", () =>
    Effect.gen(function* () {
      const conntrack = yield* MemoryConntrack
      const store = yield* MemoryStore
      yield* map(group("8080", [web], { "portmapper.allow": "10.0.0.0/8" }))
      const before = conntrack.flushed().length
      store.refuse(new StoreError({ reason: "Full", operation: "recording", detail: "disk full" }))
      yield* refused(group("8080", [web]))
      assert.deepStrictEqual(conntrack.flushed().slice(before), [
        "0.0.0.0:8080/tcp unless to 172.17.0.2:80",
        "0.0.0.0:8080/tcp unless to 172.17.0.2:80 from 10.0.0.0/8 and narrowed"
      ])
    }))

  test("keeps a mapping that the kernel refuses to remove, and removes it later", () =>
    Effect.gen(function* () {
      const firewall = yield* MemoryFirewall
      const bindings = yield* map(group("8711", [web, webBy6]))
      const before = yield* host
      firewall.refuse(
        new FirewallError({ reason: "Busy", operation: "change", detail: "no buffer space available" })
      )
      const error = yield* Effect.flip(unmap(bindings))
      assert.strictEqual(
        error.message,
        "unmapping 0.0.0.0:8711/tcp failed: change failed: no buffer space available"
      )
      assert.deepStrictEqual((yield* host).rules, before.rules)
      assert.deepStrictEqual((yield* host).sockets, ["0.0.0.0:8711/tcp"])
      assert.deepStrictEqual((yield* host).stored, ["0.0.0.0:8711 answered"])
      firewall.refuse(undefined)
      yield* unmap(bindings)
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("records a mapping that the kernel refuses to remove before the call fails, although recording fails at first, too", () =>
    Effect.gen(function* () {
      const bindings = yield* map(group("8080", [web]))
      const before = yield* host
      const failures = new Set(["Firewall.apply", "MappingStore.put"])
      const failed = yield* Effect.flip(unmap(bindings)).pipe(
        Effect.provideService(Steps, (step) =>
          failures.delete(step) ? Effect.fail(new InjectedFailure({ step })) : Effect.void
        )
      )
      assert.include(failed.message, "8080")
      assert.deepStrictEqual([...failures], [])
      assert.deepStrictEqual(yield* host, before)
    }))

  test("refuses new mappings while the store is full, and keeps the old", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web]))
      const before = yield* host
      const store = yield* MemoryStore
      store.refuse(
        new StoreError({
          reason: "Full",
          operation: "recording a mapping",
          detail: "no space left on device"
        })
      )
      assert.strictEqual(
        yield* refused(group("8081", [web])),
        "StoreError: recording a mapping failed: no space left on device"
      )
      assert.deepStrictEqual(yield* host, before)
    }))
})

describe("mapPorts in the other modes", () => {
  test("lets the Engine redirect in engine mode", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* mapped(group("8080", [web, webBy6], { "portmapper.mode": "engine" })), [
        "0.0.0.0:8080/tcp -> 172.17.0.2:80, forward, nat 0.0.0.0:8080",
        "[::]:8080/tcp -> 172.17.0.2:80"
      ])
      assert.deepStrictEqual((yield* host).rules, [])
    }))

  test("reserves nothing in routed mode, returns the same answer when repeated, and unmaps by the backend", () =>
    Effect.gen(function* () {
      const routed = group("8080", [web], { "portmapper.mode": "routed" })
      const bindings = yield* map(routed)
      assert.deepStrictEqual(bindings.map(bindingText), ["0.0.0.0:8080/tcp -> 172.17.0.2:80, forward"])
      assert.deepStrictEqual(yield* mapped(routed), ["0.0.0.0:8080/tcp -> 172.17.0.2:80, forward"])
      assert.deepStrictEqual((yield* host).sockets, [])
      yield* unmap(bindings)
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test(
    "names the reason why a mode is unavailable, and the valid labels",
    () =>
      Effect.gen(function* () {
        assert.strictEqual(
          yield* refused(group("8080", [web], { "portmapper.mode": "nat" })),
          "ModeUnavailable: mode nat is not available: nft was not found"
        )
        assert.strictEqual(
          yield* refused(
            group("8080", [web], { "portmapper.mod": "nat", "portmapper.allow": "10.0.0.0/33" })
          ),
          'RequestError: bad request: Labels["portmapper.mod"] = "nat": must be one of the known labels (the nearest is portmapper.mode): portmapper.mode, portmapper.allow, portmapper.proxy-protocol, portmapper.udp-idle, portmapper.publish, portmapper.network; Labels["portmapper.allow"] = "10.0.0.0/33": must be addresses or prefixes such as 10.0.0.0/8,2001:db8::/32 (10.0.0.0/33: prefix length must be an integer from 0 through 32)'
        )
      }),
    { natUnavailable: "nft was not found", defaultMode: "engine" }
  )
})

describe("listPorts", () => {
  test("sums the traffic of the kernel and the relay, where both count", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      const kernel = yield* MemoryByteCounter
      const bytes = Effect.map(driver.listPorts ?? Effect.succeed([]), (listed) =>
        listed.map(
          ({ frontendIp, mode, bytesIn, bytesOut }) => `${frontendIp} ${mode} ${bytesIn} ${bytesOut}`
        )
      )
      const bindings = yield* map(group("8080", [web, webBy6]))
      yield* map(group("8081", [web], { "portmapper.mode": "proxy" }))
      yield* map(group("8082", [web], { "portmapper.mode": "engine" }))
      const others = ["0.0.0.0 proxy 0 0", "0.0.0.0 engine undefined undefined"]
      assert.deepStrictEqual(yield* bytes, ["0.0.0.0 nat undefined undefined", ":: nat 0 0", ...others])
      kernel.carry("0.0.0.0:8080/tcp", { in: 10, out: 200 })
      assert.deepStrictEqual(yield* bytes, ["0.0.0.0 nat 10 200", ":: nat 0 0", ...others])
      yield* unmap(bindings)
      yield* map(group("8080", [web]))
      assert.deepStrictEqual(yield* bytes, [...others, "0.0.0.0 nat 0 0"])
    }))
})

describe("mapPorts rolled back", () => {
  const everything = group("8000-8010", [
    web,
    "tcp 10.99.0.1 172.17.0.2:80",
    webBy6,
    "udp 0.0.0.0 172.17.0.2:80",
    "tcp 127.0.0.1 172.17.0.2:80"
  ])

  test("leaves nothing after a failure or an interruption at any step", () =>
    leavesNothing(mapAndTell(everything)))

  test("restores the old policy after a failure or an interruption at any step of a new one", () =>
    Effect.gen(function* () {
      const limited = map(group("8080", [web, webBy6], { "portmapper.allow": "10.0.0.0/8" }))
      yield* limited
      const before = yield* host
      yield* atEveryStep(
        mapAndTell(group("8080", [web, webBy6, "udp 0.0.0.0 172.17.0.2:80"])),
        (how, step) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* host, before, `${how} at ${step}`)
          }),
        Effect.andThen(unmapAll, limited)
      )
    }))

  const lost = Exit.fail("the client is gone")
  const undelivered = (asked: Group) =>
    Driver.use((driver) => Effect.exit(Effect.scoped(Effect.andThen(driver.mapPorts(asked), lost))))

  test("releases what a call created when its answer is lost, and keeps the latest policy", () =>
    Effect.gen(function* () {
      const limited = { "portmapper.allow": "10.0.0.0/8" }
      yield* map(group("8080", [web], limited))
      const before = yield* host
      yield* unmapAll
      yield* map(group("8080", [web]))
      yield* undelivered(group("8080", [web, webBy6], limited))
      assert.deepStrictEqual(yield* host, before)
    }))

  describe("a binding whose host port is removed", () => {
    const routed = group("8080", [web], { "portmapper.mode": "routed" })
    const portless = { ...nothing, stored: ["0.0.0.0:0 answered"] }

    test("loses the port, also where the answer is lost", () =>
      Effect.gen(function* () {
        for (const asking of [mapped(routed), undelivered(routed)]) {
          yield* map(group("8080", [web]))
          yield* asking
          assert.deepStrictEqual(yield* host, portless)
          yield* unmapAll
        }
      }))

    test("keeps the port after a failure or an interruption at any step", () =>
      Effect.gen(function* () {
        const published = map(group("8080", [web]))
        yield* published
        const before = yield* host
        const steps = yield* atEveryStep(
          mapAndTell(routed),
          (how, step) =>
            Effect.gen(function* () {
              assert.deepStrictEqual(yield* host, before, `${how} at ${step}`)
            }),
          Effect.andThen(unmapAll, published)
        )
        assert.include(steps, "MappingStore.put")
      }))

    test("is refused where the port can't be removed", () =>
      Effect.gen(function* () {
        const firewall = yield* MemoryFirewall
        yield* map(group("8080", [web]))
        const before = yield* host
        firewall.refuse(new FirewallError({ reason: "Failed", operation: "change", detail: "busy" }))
        assert.match(yield* refused(routed), /^UnmapError: unmapping 0\.0\.0\.0:8080\/tcp failed: .*busy/)
        firewall.refuse(undefined)
        assert.deepStrictEqual(yield* host, before)
      }))

    test("leaves nothing where the answer to both is lost", () =>
      Effect.gen(function* () {
        const driver = yield* Driver
        const answer = yield* Scope.make()
        yield* Effect.provideService(driver.mapPorts(group("8080", [web])), Scope.Scope, answer)
        yield* undelivered(routed)
        yield* Scope.close(answer, lost)
        assert.deepStrictEqual(yield* host, nothing)
      }))
  })

  test("records no answer for a mapping that is unmapped while its answer is recorded", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      const [scope, writing, written] = [
        yield* Scope.make(),
        yield* Deferred.make<void>(),
        yield* Deferred.make<void>()
      ]
      const bindings = yield* Effect.provideService(driver.mapPorts(group("8080", [web])), Scope.Scope, scope)
      const confirming = yield* Effect.forkChild(
        Effect.provideService(Scope.close(scope, Exit.void), Steps, () =>
          Effect.andThen(Deferred.succeed(writing, undefined), Deferred.await(written))
        )
      )
      yield* Deferred.await(writing)
      const unmapping = yield* Effect.forkChild(unmap(bindings), { startImmediately: true })
      yield* Deferred.succeed(written, undefined)
      yield* Fiber.joinAll([confirming, unmapping])
      assert.deepStrictEqual(yield* host, nothing)
    }))

  describe("a relay that refuses while a change of policy is rolled back", () => {
    const on = (host: string, labels: Record<string, string>) =>
      group("8080", [`tcp ${host} 172.17.0.2:80`], labels)
    const proxy = { "portmapper.mode": "proxy" }
    const refusing =
      (...names: ReadonlyArray<string>) =>
      (step: string) =>
        names.includes(step) ? Effect.fail(new InjectedFailure({ step })) : Effect.void

    test("for a failed call, relays as before once it accepts again", () =>
      Effect.gen(function* () {
        yield* map(on("10.99.0.1", proxy))
        const before = yield* host
        const changed = Effect.exit(map(on("10.99.0.1", {})))
        yield* Effect.provideService(changed, Steps, refusing("MappingStore.put", "Relay.open"))
        assert.deepStrictEqual((yield* host).routes, [])
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* host, before)
      }))
  })

  test("keeps the result of another call answered meanwhile", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      const first = yield* Scope.make()
      yield* Effect.provideService(driver.mapPorts(group("8080", [web])), Scope.Scope, first)
      yield* map(group("8080", [web]))
      yield* Scope.close(first, Exit.fail("the client is gone"))
      assert.deepStrictEqual((yield* host).stored, ["0.0.0.0:8080 answered"])
      assert.deepStrictEqual((yield* host).rules, ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"])
    }))
})

describe("a table that another process removed", () => {
  test("is restored within two seconds with all mappings", () =>
    Effect.gen(function* () {
      const firewall = yield* MemoryFirewall
      const conntrack = yield* MemoryConntrack
      yield* map(group("8080", [web, "udp :: [fd00::2]:53"]))
      const before = yield* host
      const once = conntrack.flushed()
      firewall.flush()
      assert.deepStrictEqual((yield* host).rules, [])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* host, before)
      // Flows that bypassed it meanwhile are redirected again.
      assert.deepStrictEqual(conntrack.flushed(), [...once, ...once])
    }))

  test("is restored at once by the next mapping", () =>
    Effect.gen(function* () {
      const firewall = yield* MemoryFirewall
      yield* map(group("8080", [web]))
      firewall.flush()
      yield* map(group("8081", [web]))
      assert.deepStrictEqual((yield* host).rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80",
        "Redirect 0.0.0.0:8081/tcp -> 172.17.0.2:80"
      ])
    }))
})

describe("a conflicting mapping", () => {
  const other = group("8080", ["tcp 0.0.0.0 172.17.0.3:80"])

  test("of an Engine's earlier start is evicted after a minute without confirmation", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      yield* map(group("8080", [web]))
      yield* map(group("8081", [web]))
      yield* driver.activated ?? Effect.void
      yield* TestClock.adjust("2 minutes")
      yield* map(group("8081", [web]))
      yield* TestClock.adjust("59 seconds")
      assert.match(yield* refused(other), /port is already allocated/)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* mapped(other), ["0.0.0.0:8080/tcp -> 172.17.0.3:80, forward"])
      assert.match(yield* refused(group("8081", ["tcp 0.0.0.0 172.17.0.3:80"])), /port is already allocated/)
    }))

  test("of another owner never goes stale", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      yield* Effect.provideService(map(group("8080", [web])), CurrentOwner, "cli")
      yield* driver.activated ?? Effect.void
      yield* map(group("8081", [web]))
      yield* TestClock.adjust("2 minutes")
      assert.match(yield* refused(other), /held by cli/)
    }))

  it.effect("is evicted when its container is gone, but only after that container had time to start", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web]))
      yield* TestClock.adjust("29 seconds")
      assert.match(yield* refused(other), /port is already allocated/)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* mapped(other), ["0.0.0.0:8080/tcp -> 172.17.0.3:80, forward"])
      assert.match(yield* refused(group("8080", [web])), /port is already allocated/)
    }).pipe(Effect.provide(PortMapper.layerMemory({}, Backends.layerMemory(new Set(["172.17.0.2"])))))
  )

  it.effect("stays evicted where the answer to the call that evicted it is lost", () =>
    Effect.gen(function* () {
      const driver = yield* Driver
      yield* map(group("8080", [web]))
      yield* TestClock.adjust("30 seconds")
      yield* Effect.exit(Effect.scoped(Effect.andThen(driver.mapPorts(other), Effect.fail("gone"))))
      assert.deepStrictEqual(yield* host, nothing)
    }).pipe(Effect.provide(PortMapper.layerMemory({}, Backends.layerMemory(new Set(["172.17.0.2"])))))
  )

  it.effect("is restored after a failure or an interruption at any step of the call that evicts it", () =>
    Effect.gen(function* () {
      const evictable = Effect.andThen(map(group("8080", [web])), TestClock.adjust("30 seconds"))
      yield* evictable
      const before = yield* host
      yield* atEveryStep(
        mapAndTell(other),
        (how, step) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* host, before, `${how} at ${step}`)
          }),
        Effect.andThen(unmapAll, evictable)
      )
    }).pipe(Effect.provide(PortMapper.layerMemory({}, Backends.layerMemory(new Set(["172.17.0.2"])))))
  )
})

describe("the owner of a mapping", () => {
  const as = (owner: string) => Effect.provideService(map(group("8080", [web])), CurrentOwner, owner)
  const owners = Driver.use((driver) => driver.listPorts ?? Effect.succeed([])).pipe(
    Effect.map((listed) => listed.map(({ owner, connections }) => `${owner} ${connections}`))
  )

  test("is the last one of its kind to request it", () =>
    Effect.gen(function* () {
      yield* as("cni:one/eth0")
      yield* as("cni:other/eth0")
      assert.deepStrictEqual(yield* owners, ["cni:other/eth0 0"])
    }))

  test("does not change when another kind requests it", () =>
    Effect.gen(function* () {
      yield* as("engine")
      yield* as("cni:one/eth0")
      yield* as("cli")
      assert.deepStrictEqual(yield* owners, ["engine 0"])
    }))

  test("may list only its own mappings, without their counters", () =>
    Effect.gen(function* () {
      yield* as("cli")
      yield* map(group("8081", [web]))
      const listed = (owner: string) => Effect.provideService(owners, ListedOwner, owner)
      assert.deepStrictEqual(yield* listed("cli"), ["cli undefined"])
      assert.deepStrictEqual(yield* listed("cni:one/eth0"), [])
    }))
})

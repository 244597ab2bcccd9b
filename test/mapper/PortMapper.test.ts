import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { map, refused, testMapper as test, unmap } from "../support/calls.ts"
import { bindingText, group, releaseOf } from "../support/groups.ts"
import { host, nothing } from "../support/memoryHost.ts"

const mapped = (asked: Group) => Effect.map(map(asked), (bindings) => bindings.map(bindingText))

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

  test("relays from everywhere what leads to a loopback address", () =>
    Effect.gen(function* () {
      yield* map(group("8080", ["tcp 0.0.0.0 127.0.0.1:80", "tcp :: [::1]:80"]))
      const { rules, routes } = yield* host
      assert.deepStrictEqual(rules, [])
      assert.deepStrictEqual(routes, [
        "0.0.0.0:8080/tcp -> 127.0.0.1:80 admits everything",
        "[::]:8080/tcp -> [::1]:80 admits everything"
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
    "discards what is asked for on all IPv6 addresses of a host without IPv6, and nothing else",
    () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* mapped(group("8080", [web, webBy6])), [
          "0.0.0.0:8080/tcp -> 172.17.0.2:80, forward",
          "[::]:8080/tcp -> 172.17.0.2:80, discarded: [::]/tcp to 172.17.0.2: this host has no IPv6"
        ])
        assert.deepStrictEqual((yield* host).stored, ["0.0.0.0:8080 answered"])
        assert.strictEqual(
          yield* refused(group("8081", [webBy6])),
          "NothingServed: [::]/tcp to 172.17.0.2: this host has no IPv6"
        )
      }),
    { ipv6: false }
  )

  test("reads an IPv4-mapped source of the allow-list as the IPv4 one", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web], { "portmapper.allow": "::ffff:198.51.100.2,::ffff:10.0.0.0/104" }))
      assert.deepStrictEqual((yield* host).rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 from 198.51.100.2/32,10.0.0.0/8"
      ])
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
})

describe("mapPorts in the other modes", () => {
  test("relays every client's connection where the label asks for the PROXY protocol's header", () =>
    Effect.gen(function* () {
      const header = { "portmapper.proxy-protocol": "v2" }
      const expected = ["0.0.0.0:8080/tcp -> 172.17.0.2:80"]
      assert.deepStrictEqual(yield* mapped(group("8080", [web], header)), expected)
      const relayed = { rules: [], routes: ["0.0.0.0:8080/tcp -> 172.17.0.2:80 admits everything"] }
      assert.deepInclude(yield* host, relayed)
      // The same mapping with and without the label.
      yield* map(group("8080", [web]))
      assert.deepInclude(yield* host, { rules: ["Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80"] })
      yield* map(group("8080", [web], { ...header, "portmapper.mode": "auto" }))
      assert.deepInclude(yield* host, relayed)
      // Only TCP has the header.
      yield* map(group("8081", ["udp 0.0.0.0 172.17.0.2:80"], header))
      assert.deepInclude(yield* host, { rules: ["Redirect 0.0.0.0:8081/udp -> 172.17.0.2:80"] })
    }))

  for (const mode of ["nat", "engine", "routed"])
    test(`refuses the PROXY protocol's header in mode ${mode}`, () =>
      Effect.gen(function* () {
        const labels = { "portmapper.proxy-protocol": "v1", "portmapper.mode": mode }
        assert.strictEqual(
          yield* refused(group("8080", [web], labels)),
          `RequestError: bad request: Labels["portmapper.mode"] = "${mode}": must be proxy, or not given, beside portmapper.proxy-protocol: only the relay sends the header`
        )
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
          'RequestError: bad request: Labels["portmapper.mod"] = "nat": must be one of the known labels (the nearest is portmapper.mode): portmapper.mode, portmapper.allow, portmapper.proxy-protocol, portmapper.udp-idle, portmapper.connections, portmapper.rate, portmapper.rate-per-source, portmapper.share, portmapper.balance, portmapper.scope, portmapper.health, portmapper.wait-healthy, portmapper.publish, portmapper.network, portmapper.interface, portmapper.wake, portmapper.wake-timeout, portmapper.wake-count, portmapper.sleep; Labels["portmapper.allow"] = "10.0.0.0/33": must be addresses or prefixes such as 10.0.0.0/8,2001:db8::/32 (10.0.0.0/33: prefix length must be an integer from 0 through 32)'
        )
      }),
    { natUnavailable: "nft was not found", defaultMode: "engine" }
  )
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
})

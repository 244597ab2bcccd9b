import { readdirSync, writeFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { libc } from "../../../adapters/linux/Libc.ts"
import { layer } from "../../../adapters/linux/sockets/LinuxSockets.ts"
import { type HostSocket, HostSockets } from "../../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"
import { describeInNamespace, ip, run } from "../../lab/ThreadNamespace.ts"
import { hostSocketsConformance } from "../../ports/hostSocketsConformance.ts"
import { reaches } from "./reaches.ts"

const any4 = addressUnsafe("0.0.0.0")
const any6 = addressUnsafe("::")

describeInNamespace("LinuxSockets", () => {
  ip("link add eth0 type veth peer name eth1")
  ip("link set eth0 up")
  ip("address add fe80::1/64 dev eth0 nodad")

  hostSocketsConformance("HostSockets on Linux", layer())

  const test = <E>(title: string, body: Effect.Effect<void, E, HostSockets>, load = libc) =>
    it.live(title, () => Effect.provide(body, layer(load)))

  test(
    "refuses to adopt a descriptor of another socket than stated",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const { fd } = yield* sockets.open("tcp", any4, 18103)
      for (const wrong of [
        { protocol: "tcp", host: any4, port: 18104, fd },
        { protocol: "udp", host: any4, port: 18103, fd },
        { protocol: "tcp", host: any6, port: 18103, fd },
        { protocol: "tcp", host: addressUnsafe("127.0.0.1"), port: 18103, fd },
        { protocol: "tcp", host: any4, port: 18103, fd: 4_000 }
      ] as const) {
        const { message } = yield* Effect.flip(sockets.adopt([wrong]))
        assert.match(message, /^descriptor \d+ is not a socket bound to \S+:\d+\/(tcp|udp)$/)
      }
      assert.deepStrictEqual(yield* sockets.closeUnopened, [])
    })
  )

  test(
    "opens a TCP port whose last connections are in TIME_WAIT",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const first = yield* sockets.open("tcp", any4, 18101)
      yield* sockets.admit(first, "everything")
      assert.isTrue(yield* reaches(first, "127.0.0.1", true))
      yield* sockets.close(first)
      yield* sockets.open("tcp", any4, 18101)
    })
  )

  test(
    "reports an address of another host",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const foreign = yield* Effect.flip(sockets.open("tcp", addressUnsafe("192.0.2.1"), 18102))
      assert.deepStrictEqual(
        [foreign.reason, foreign.message],
        ["NotLocal", "cannot assign requested address"]
      )
      const zone = yield* Effect.flip(sockets.open("tcp", addressUnsafe("fe80::1%eth9"), 18102))
      assert.deepStrictEqual([zone.reason, zone.message], ["NotLocal", "no interface eth9"])
    })
  )

  test(
    "binds a link-local address in its zone, by name and by number",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const index = ip("-oneline link show eth0").split(":")[0]
      yield* sockets.open("tcp", addressUnsafe("fe80::1%eth0"), 18103)
      const again = yield* Effect.flip(sockets.open("tcp", addressUnsafe(`fe80::1%${index}`), 18103))
      assert.strictEqual(again.reason, "InUse")
    })
  )

  test(
    "opens SCTP, or reports that this kernel has none",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const outcome = yield* Effect.result(sockets.open("sctp", any4, 18104))
      if (outcome._tag === "Failure")
        assert.deepStrictEqual(
          [outcome.failure.reason, outcome.failure.message],
          ["Unsupported", "SCTP is not supported by this kernel"]
        )
    })
  )

  test(
    "reports that descriptors are exhausted, and leaves none open",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      // It loads the filter that all sockets share.
      yield* sockets.close(yield* sockets.open("tcp", any4, 18110))
      const before = readdirSync("/proc/self/fd").length
      const limit = run(`prlimit --pid ${process.pid} --nofile --noheadings --output SOFT`).trim()
      const held: Array<HostSocket> = []
      const ports = Array.from({ length: 100 }, (_, index) => 18110 + index)
      run(`prlimit --pid ${process.pid} --nofile=${before + 40}:`)
      const error = yield* Effect.flip(
        Effect.forEach(ports, (port) =>
          Effect.map(sockets.open("tcp", any4, port), (socket) => held.push(socket))
        )
      )
      for (const socket of held) yield* sockets.close(socket)
      run(`prlimit --pid ${process.pid} --nofile=${limit}:`)
      assert.deepStrictEqual([error.reason, error.message], ["Exhausted", "too many open files"])
      assert.strictEqual(readdirSync("/proc/self/fd").length, before)
    })
  )

  it.live("closes open sockets with its layer", () =>
    Effect.gen(function* () {
      const before = readdirSync("/proc/self/fd").length
      yield* Effect.provide(
        HostSockets.use((sockets) => sockets.open("tcp", any4, 18105)),
        layer()
      )
      assert.strictEqual(readdirSync("/proc/self/fd").length, before)
    })
  )

  test(
    "reads the host's ephemeral and reserved ports",
    Effect.gen(function* () {
      const { ephemeral } = yield* HostSockets
      writeFileSync("/proc/sys/net/ipv4/ip_local_port_range", "40000 40999")
      writeFileSync("/proc/sys/net/ipv4/ip_local_reserved_ports", "40010,40020-40030")
      assert.deepStrictEqual(yield* ephemeral, {
        range: { first: 40000, last: 40999 },
        reserved: [
          { first: 40010, last: 40010 },
          { first: 40020, last: 40030 }
        ]
      })
      writeFileSync("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n")
      assert.deepStrictEqual((yield* ephemeral).reserved, [])
    })
  )
})

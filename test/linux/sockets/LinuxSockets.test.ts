import { createSocket } from "node:dgram"
import { readdirSync, writeFileSync } from "node:fs"
import { connect, type TcpNetConnectOpts } from "node:net"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  ENOMEM,
  EPERM,
  type Libc,
  libc,
  MSG_DONTWAIT,
  SO_ATTACH_BPF,
  SO_ATTACH_FILTER,
  SOL_SOCKET
} from "../../../adapters/linux/Libc.ts"
import { layer } from "../../../adapters/linux/sockets/LinuxSockets.ts"
import { type HostSocket, HostSockets } from "../../../src/ports/HostSockets.ts"
import { type Address, addressUnsafe } from "../../../src/protocol/Address.ts"
import { patienceMillis } from "../../lab/patience.ts"
import { describeInNamespace, ip, run } from "../../lab/ThreadNamespace.ts"
import { hostSocketsConformance } from "../../ports/hostSocketsConformance.ts"

const any4 = addressUnsafe("0.0.0.0")
const any6 = addressUnsafe("::")

describeInNamespace("LinuxSockets", () => {
  ip("link add eth0 type veth peer name eth1")
  ip("link set eth0 up")
  ip("link set eth1 up")
  ip("address add 10.1.0.1/24 dev eth0")
  ip("address add fd00:1::1/64 dev eth0 nodad")
  ip("address add fe80::1/64 dev eth0 nodad")

  hostSocketsConformance("HostSockets on Linux", layer())

  const test = <E>(title: string, body: Effect.Effect<void, E, HostSockets>, load = libc) =>
    it.live(title, () => Effect.provide(body, layer(load)))
  const withoutBpf = (): Libc => ({ ...libc(), bpf: () => -EPERM })
  /** Refuses filters of more than so many instructions. */
  const refusing = (errno: number, longest = 0): Libc => {
    const real = withoutBpf()
    return {
      ...real,
      setsockopt: (fd, level, option, value, length) =>
        level === SOL_SOCKET &&
        option === SO_ATTACH_FILTER &&
        (value[0] ?? 0) + 256 * (value[1] ?? 0) > longest
          ? -errno
          : real.setsockopt(fd, level, option, value, length)
    }
  }
  /** Has memory for any filter of many backends. */
  const withoutLimit = (): Libc => {
    const real = libc()
    return {
      ...real,
      setsockopt: (fd, level, option, value, length) =>
        level === SOL_SOCKET && option === SO_ATTACH_BPF
          ? 0
          : real.setsockopt(fd, level, option, value, length)
    }
  }
  /** As a kernel does to users without privileges, on TCP sockets at least. */
  const withoutFilters = (): Libc => refusing(EPERM)

  /** Connecting to an own address uses it as the source, too, unless the client is bound to another one. */
  const sources: ReadonlyArray<{
    readonly host: Address
    readonly address: string
    readonly from?: string
    readonly backends?: ReadonlyArray<string>
    readonly local: boolean
  }> = [
    { host: any4, address: "127.0.0.1", local: true },
    { host: any4, address: "127.1.2.3", local: true },
    { host: any4, address: "127.1.2.3", from: "10.1.0.1", local: true },
    { host: any4, address: "10.1.0.1", from: "127.0.0.1", local: true },
    { host: any4, address: "10.1.0.1", local: false },
    { host: any4, address: "10.1.0.1", backends: ["10.1.0.2", "10.1.0.1"], local: true },
    { host: any4, address: "10.1.0.1", backends: ["fd00:1::1", "10.1.0.2"], local: false },
    { host: any6, address: "::1", local: true },
    { host: any6, address: "::1", from: "fd00:1::1", local: true },
    { host: any6, address: "fd00:1::1", from: "::1", local: true },
    { host: any6, address: "fe80::1%eth0", local: true },
    { host: any6, address: "fd00:1::1", local: false },
    { host: any6, address: "fd00:1::1", backends: ["fd00:1::1:1", "fd00:1::1"], local: true },
    { host: any6, address: "fd00:1::1", backends: ["10.1.0.1", "fd00:1::1:1"], local: false }
  ]
  const programs = [
    { load: libc, filter: "a shared filter", before: 5 },
    { load: libc, filter: "a copy of the filter", before: 0 },
    { load: withoutBpf, filter: "a copy where none is shared", before: 5 }
  ]
  const cases = programs.flatMap((program) => sources.map((source) => ({ ...program, ...source })))
  for (const { host, address, from, backends = [], local, load, filter, before } of cases)
    for (const protocol of ["tcp", "udp"] as const)
      test(
        `with ${filter}, ${local ? "admits" : "does not admit"} ${protocol} from ${from ?? address} to ${address} under loopback, backends [${backends}]`,
        Effect.gen(function* () {
          const sockets = yield* HostSockets
          const socket = yield* sockets.open(protocol, host, 18100)
          assert.isFalse(yield* reaches(socket, address, false, from))
          for (const [admission, wanted] of [
            ["loopback", local],
            ["everything", true],
            ["nothing", false]
          ] as const) {
            for (let time = 0; time <= before; time++)
              yield* sockets.admit(socket, admission, backends.map(addressUnsafe))
            assert.strictEqual(yield* reaches(socket, address, wanted, from), wanted, admission)
          }
        }),
        load
      )

  test(
    "names the kernel's setting where a filter has too many backends",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const socket = yield* sockets.open("tcp", any4, 18198)
      const backends = Array.from({ length: 20 }, (_, index) => addressUnsafe(`10.1.0.${index}`))
      assert.strictEqual(
        (yield* Effect.flip(sockets.admit(socket, "loopback", backends))).message,
        "cannot allocate memory: a socket's filter for 20 backends needs a greater net.core.optmem_max, such as 1048576"
      )
    }),
    () => refusing(ENOMEM, 20)
  )

  test(
    "loads a filter that is longer than a classic one may be",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const socket = yield* sockets.open("tcp", any6, 18197)
      const backends = Array.from({ length: 460 }, (_, index) => addressUnsafe(`fd00:2::${index}`))
      yield* sockets.admit(socket, "loopback", backends)
    }),
    withoutLimit
  )

  test(
    "needs one more descriptor for the filter of many sockets, none for that of a few, and none once they are closed",
    Effect.gen(function* () {
      const sockets = yield* HostSockets
      const descriptors = () => readdirSync("/proc/self/fd").length
      yield* sockets.open("udp", any4, 18199)
      const before = descriptors()
      const opened = yield* Effect.forEach(Array.from({ length: 20 }), (_, index) =>
        sockets.open("udp", any4, 18200 + index)
      )
      const backend = (index: number) => [addressUnsafe(index < 10 ? "10.1.0.1" : `10.1.0.${index}`)]
      yield* Effect.forEach(opened, (socket, index) => sockets.admit(socket, "loopback", backend(index)))
      assert.strictEqual(descriptors(), before + opened.length + 1)
      assert.deepStrictEqual(
        yield* Effect.forEach([0, 9, 10], (index) => reaches(opened[index] as HostSocket, "10.1.0.1")),
        [true, true, false]
      )
      for (const [index, socket] of opened.entries())
        yield* index % 2 === 0 ? sockets.close(socket) : sockets.admit(socket, "nothing")
      assert.strictEqual(descriptors(), before + opened.length / 2)
    })
  )

  for (const { host, address } of sources)
    test(
      `where filters are refused, admits tcp from ${address} under admission everything, and nothing before`,
      Effect.gen(function* () {
        const sockets = yield* HostSockets
        const socket = yield* sockets.open("tcp", host, 18106)
        assert.isFalse(yield* reaches(socket, address))
        for (const admission of ["everything", "nothing", "everything"] as const) {
          yield* sockets.admit(socket, admission)
          const wanted = admission === "everything"
          assert.strictEqual(yield* reaches(socket, address, wanted), wanted)
        }
        const refused = yield* Effect.flip(sockets.admit(socket, "loopback"))
        assert.deepStrictEqual([refused.reason, refused.message], ["Denied", "operation not permitted"])
      }),
      withoutFilters
    )

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

/** Whether a packet from this address reaches the socket: a handshake, or a datagram to read. */
const reaches = (
  socket: HostSocket,
  address: string,
  isWanted = false,
  from?: string
): Effect.Effect<boolean> =>
  socket.protocol === "tcp"
    ? connects(
        { host: address, port: socket.port, ...(from === undefined ? {} : { localAddress: from }) },
        isWanted ? patienceMillis : 200
      )
    : receives(socket, address, from)

const connects = (to: TcpNetConnectOpts, duration: number) =>
  Effect.callback<boolean>((resume) => {
    const client = connect(to)
    client.on("connect", () => resume(Effect.succeed(true)))
    client.on("error", () => resume(Effect.succeed(false)))
    return Effect.sync(() => client.destroy())
  }).pipe(Effect.timeoutOrElse({ duration, orElse: () => Effect.succeed(false) }))

const receives = (socket: HostSocket, address: string, from?: string) =>
  Effect.callback<boolean>((resume) => {
    const client = createSocket(address.includes(":") ? "udp6" : "udp4")
    client.bind(0, from)
    client.send("ping", socket.port, address, () => {
      client.close()
      const bytes = new Uint8Array(16)
      const received = libc().recvfrom(
        socket.fd,
        bytes,
        16,
        MSG_DONTWAIT,
        new Uint8Array(28),
        Uint8Array.of(28, 0, 0, 0)
      )
      resume(Effect.succeed(received === 4))
    })
  })

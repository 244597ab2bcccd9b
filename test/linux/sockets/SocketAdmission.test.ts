import { readdirSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  ENOMEM,
  EPERM,
  type Libc,
  libc,
  SO_ATTACH_BPF,
  SO_ATTACH_FILTER,
  SOL_SOCKET
} from "../../../adapters/linux/Libc.ts"
import { layer } from "../../../adapters/linux/sockets/LinuxSockets.ts"
import { type HostSocket, HostSockets } from "../../../src/ports/HostSockets.ts"
import { type Address, addressUnsafe } from "../../../src/protocol/Address.ts"
import { describeInNamespace, ip } from "../../lab/ThreadNamespace.ts"
import { reaches } from "./reaches.ts"

const any4 = addressUnsafe("0.0.0.0")
const any6 = addressUnsafe("::")

describeInNamespace("what a reserved socket admits", () => {
  ip("link add eth0 type veth peer name eth1")
  ip("link set eth0 up")
  ip("link set eth1 up")
  ip("address add 10.1.0.1/24 dev eth0")
  ip("address add fd00:1::1/64 dev eth0 nodad")
  ip("address add fe80::1/64 dev eth0 nodad")

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
})

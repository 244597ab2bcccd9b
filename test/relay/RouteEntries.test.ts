import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { IpNetwork } from "effect/net"
import {
  admissionOf,
  backendsOf,
  limitStateOf,
  RouteEntries,
  type RouteEntry,
  servingOf
} from "../../adapters/relay/RouteEntries.ts"
import type { Admission, HostSocket } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { noLimits } from "../../src/protocol/Limits.ts"
import type { Route } from "../../src/relay/Relay.ts"
import { endpoint } from "./world.ts"

const anySocket: HostSocket = { protocol: "tcp", host: addressUnsafe("0.0.0.0"), port: 80, fd: 20 }

const entry = (id: number, host: string, more: Partial<Route> = {}, socket = anySocket): RouteEntry => {
  const route: Route = {
    ...{ protocol: socket.protocol, host: addressUnsafe(host), port: socket.port, socket },
    ...{ backend: endpoint("10.0.0.2", 8080), admits: "everything" as const },
    ...{ allow: undefined, proxyProtocol: undefined, udpIdle: undefined },
    ...more
  }
  return { route, id, thread: 0, scope: 0, limitState: undefined, next: undefined }
}

/** The first entry of the socket that they share. */
const sharing = (...entries: ReadonlyArray<RouteEntry>): RouteEntry | undefined => {
  const all = new RouteEntries()
  for (const one of entries) all.add(one)
  return all.first(anySocket)
}

describe("the routes of a socket", () => {
  it("are found by frontend, by number and by socket, each once, until they are removed", () => {
    const entries = new RouteEntries()
    const [one, two, three] = [entry(1, "10.0.0.1"), entry(2, "10.0.0.1"), entry(3, "0.0.0.0")]
    const ids = () => {
      const found: Array<number> = []
      for (let each = entries.first(anySocket); each !== undefined; each = each.next) found.push(each.id)
      return found
    }
    for (const each of [one, three, entry(1, "10.0.0.1", { backend: endpoint("10.0.0.3", 1) })])
      entries.add(each)
    assert.deepStrictEqual(ids(), [1, 3])
    assert.strictEqual(entries.of(one.route)?.route.backend.port, 1)
    // Another route of the frontend took its place there.
    entries.add(two)
    entries.remove(entries.withId(1) ?? one)
    assert.strictEqual(entries.of(one.route), two)
    for (const each of [three, two]) entries.remove(each)
    assert.deepStrictEqual([ids(), [...entries.all()], entries.of(one.route)], [[], [], undefined])
  })

  it("admit what the widest of them needs, and from other hosts nothing for a loopback address", () => {
    const of = (host: string, admits: Exclude<Admission, "nothing">) => entry(host.length, host, { admits })
    const admission = (...entries: ReadonlyArray<RouteEntry>) => admissionOf(anySocket, sharing(...entries))
    assert.strictEqual(admission(), "nothing")
    assert.strictEqual(admission(of("0.0.0.0", "loopback")), "loopback")
    assert.strictEqual(admission(of("0.0.0.0", "loopback"), of("10.1.0.1", "everything")), "everything")
    assert.strictEqual(admission(of("0.0.0.0", "loopback"), of("127.0.0.1", "everything")), "loopback")
    const own = { ...anySocket, host: addressUnsafe("127.0.0.1") }
    assert.strictEqual(admissionOf(own, entry(1, "127.0.0.1", {}, own)), "everything")
  })

  it("have each backend once, those of loopback addresses apart", () => {
    const to = (id: number, host: string, backend: string) =>
      entry(id, host, { backend: endpoint(backend, id) })
    const first = sharing(
      to(1, "10.1.0.1", "10.0.0.2"),
      to(2, "10.1.0.2", "10.0.0.2"),
      to(3, "0.0.0.0", "10.0.0.3"),
      to(4, "127.0.0.1", "10.0.0.4")
    )
    assert.deepStrictEqual(
      backendsOf(first).map(({ text }) => text),
      ["10.0.0.3", "10.0.0.2"]
    )
  })
})

describe("the limits of a route", () => {
  it("go on counting with the frontend's other routes, and anew where those count no sources", () => {
    const limits = { ...noLimits, connections: 3 }
    const { route } = entry(1, "10.1.0.1", { limits })
    assert.isUndefined(limitStateOf(entry(1, "10.1.0.1").route, undefined))
    const state = limitStateOf(route, undefined)
    const first = sharing({ ...entry(1, "10.1.0.1", { limits }), limitState: state })
    assert.strictEqual(limitStateOf(route, first), state)
    assert.notStrictEqual(limitStateOf(entry(2, "10.1.0.2", { limits }).route, first), state)
    assert.notStrictEqual(limitStateOf({ ...route, limits: { ...limits, ratePerSource: 1 } }, first), state)
  })
})

describe("a route as a thread serves it", () => {
  const served = (host: string, more: Partial<Route> = {}, socket = anySocket) =>
    servingOf(entry(1, host, more, socket), Duration.seconds(90))

  it("has an address of its own only on a socket for all", () => {
    const own = { ...anySocket, host: addressUnsafe("10.1.0.1") }
    assert.deepStrictEqual(
      [served("0.0.0.0"), served("10.1.0.1"), served("10.1.0.1", {}, own)].map(({ wildcard, local }) => [
        wildcard,
        local && [...local]
      ]),
      [
        [true, undefined],
        [true, [10, 1, 0, 1]],
        [false, undefined]
      ]
    )
  })

  it("has times in milliseconds, the relay's own where it has none, and networks as octets", () => {
    const { udpIdleMillis, waitMillis } = served("0.0.0.0")
    assert.deepStrictEqual([udpIdleMillis, waitMillis], [90_000, 0])
    const given = served("0.0.0.0", {
      ...{ udpIdle: Duration.seconds(5), waitHealthy: Duration.seconds(2), idle: true, admits: "loopback" },
      allow: ["10.0.0.0/8", "fd00::/16"].map(IpNetwork.fromStringUnsafe)
    })
    assert.deepInclude(given, { udpIdleMillis: 5000, waitMillis: 2000, isIdle: true, isRedirected: true })
    assert.deepStrictEqual(given.allow, [
      { octets: Uint8Array.of(10, 0, 0, 0), prefixLength: 8 },
      { octets: Uint8Array.of(0xfd, ...Array(15).fill(0)), prefixLength: 16 }
    ])
  })
})

// biome-ignore-all lint/style/noNonNullAssertion: each test knows the routes that it made
import { assert, describe, it } from "@effect/vitest"
import { inThread } from "./inThread.ts"

describe("the routes of a socket", () => {
  it("serve their own address each, and one of them all others", async () => {
    const { outcome } = await inThread(({ RouteTable: Routes, serving }) => {
      const local = (last: number) => Uint8Array.of(10, 0, 0, last)
      const to = (last: number) =>
        Routes.routeFor(Routes.firstRoute(50)!, Uint8Array.of(9, ...local(last)), 1)?.id
      const one = Routes.putRoute(serving(1, { local: local(1) }))
      const alone = Routes.servesAll(one)
      const all = Routes.putRoute(serving(0))
      Routes.putRoute(serving(2, { local: local(2) }))
      const before = [alone, to(1), to(2), to(3)]
      const isLast = [1, 2].map((id) => Routes.removeRoute(Routes.routeById(id)!))
      const without = [Routes.servesAll(all), to(1), to(2), to(3)]
      isLast.push(Routes.removeRoute(all))
      return { before, without, isLast, left: [Routes.firstRoute(50), Routes.routeById(1)] }
    })
    assert.deepStrictEqual(outcome, {
      before: [false, 1, 2, 0],
      without: [true, 0, 0, 0],
      isLast: [false, false, true],
      left: [undefined, undefined]
    })
  })

  it("are replaced with what they have open, and report their waiting clients anew", async () => {
    const { outcome, reports } = await inThread(({ RouteTable: Routes, serving }) => {
      const route = Routes.putRoute(serving(7))
      for (const now of [5000, 5999, 6000]) Routes.reportWaits(route, now)
      route.flows = { size: 3, edges: new Int32Array(6) }
      route.inLoop = true
      const again = Routes.putRoute(serving(7, { isIdle: true, waitMillis: 9 }))
      Routes.reportWaits(again, 6001)
      return [again === route, again.flows?.size, again.inLoop, again.isIdle, again.waitMillis]
    })
    assert.deepStrictEqual(outcome, [true, 3, false, true, 9])
    assert.deepStrictEqual(reports, Array(3).fill({ _tag: "Waits", id: 7 }))
  })
})

describe("the allow-list of a route", () => {
  it("admits by as many leading bits as its networks have, of its own family", async () => {
    const { outcome } = await inThread(({ RouteTable: Routes, serving }) => {
      const admitted = (prefixLength: number, network: Array<number>, source: Array<number>) => {
        const octets = Uint8Array.from(network)
        const family = source.length === 4 ? 4 : 6
        const route = Routes.putRoute(serving(0, { family, allow: [{ octets, prefixLength }] }))
        Routes.removeRoute(route)
        const name = [2, 0, 1, 187, ...(family === 4 ? [] : [0, 0, 0, 0]), ...source]
        return Routes.admitsClient(route, Uint8Array.from(name), 0)
      }
      const six = (last: number) => [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, last, 0, 0, 0, 0, 0, 0, 0]
      const ten = [10, 0, 0, 0]
      return {
        yes: [
          admitted(0, ten, [9, 9, 9, 9]),
          admitted(8, ten, [10, 255, 0, 1]),
          admitted(9, ten, [10, 127, 0, 1]),
          admitted(31, ten, [10, 0, 0, 1]),
          admitted(32, ten, ten),
          admitted(65, six(0x80), six(0xff))
        ],
        no: [
          admitted(8, ten, [11, 0, 0, 0]),
          admitted(9, ten, [10, 128, 0, 0]),
          admitted(31, ten, [10, 0, 0, 2]),
          admitted(32, ten, [10, 0, 0, 1]),
          admitted(65, six(0x80), six(0x7f)),
          admitted(0, ten, six(0))
        ]
      }
    })
    assert.deepStrictEqual(outcome, { yes: Array(6).fill(true), no: Array(6).fill(false) })
  })
})

describe("a client of a service", () => {
  it("by its source has the route with its slot, also while the service grows", async () => {
    const { outcome } = await inThread(({ RouteTable: Routes, serving }) => {
      const slots = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => from + at)
      const share = (own: Array<number>, size: 64 | 1024 = 64) =>
        ({ balance: "source", size, slots: own }) as const
      const sources = Array.from({ length: 256 }, (_, last) => Uint8Array.of(203, 0, 113, last))
      const led = (found: number) =>
        sources.map(
          (bytes) => Routes.routeOfSlot(Routes.firstRoute(50)!, Routes.routeById(found)!, bytes, 0).id
        )
      Routes.putRoute(serving(0, { share: share(slots(0, 32)) }))
      Routes.putRoute(serving(1, { share: share(slots(32, 64)) }))
      // Another frontend of the socket.
      Routes.putRoute(serving(2, { local: Uint8Array.of(10, 0, 0, 1), share: share(slots(0, 64)) }))
      const [byFirst, bySecond, ofOther] = [led(0), led(1), led(2)]
      Routes.putRoute(serving(1, { share: share(slots(512, 1024), 1024) }))
      return { byFirst, bySecond, ofOther, growing: led(0) }
    })
    const { byFirst, bySecond, ofOther, growing } = outcome
    assert.deepStrictEqual([...new Set(byFirst)].sort(), [0, 1])
    assert.deepStrictEqual(bySecond, byFirst)
    assert.deepStrictEqual(new Set(ofOther), new Set([2]))
    assert.deepStrictEqual(growing, byFirst)
  })

  it("at random has a backend that the kernel can't reach, unless the kernel left all to the relay", async () => {
    const { outcome } = await inThread(({ RouteTable: Routes, serving }) => {
      const share = (count: number) => ({ balance: "random", size: 64, slots: Array(count).fill(0) }) as const
      const drawn = (family: 4 | 6, ...source: Array<number>) => {
        const [first, found] = [Routes.firstRoute(49 + family / 2)!, Routes.routeById(family)!]
        const bytes = Uint8Array.from(source)
        const ids = Array.from({ length: 200 }, () => Routes.routeOfSlot(first, found, bytes, 0).id)
        return [...new Set(ids)].sort()
      }
      const six = (...ends: [Array<number>, number]) => [
        ...ends[0],
        ...Array(15 - ends[0].length).fill(0),
        ends[1]
      ]
      const backend6 = Uint8Array.from([10, 0, 0, 80, 0, 0, 0, 0, ...six([0xfd], 2), 0, 0, 0, 0])
      for (const [family, more] of [
        [4, {}],
        [6, { backend: backend6 }]
      ] as const) {
        const asked = { ...more, family, fd: 49 + family / 2 }
        Routes.putRoute(serving(family, { ...asked, share: share(32), isRedirected: true }))
        Routes.putRoute(serving(family + 10, { ...asked, share: share(32) }))
        Routes.putRoute(serving(family + 20, { ...asked, share: share(0) }))
      }
      const led = {
        remote: [drawn(4, 203, 0, 113, 1), drawn(6, ...six([0x20, 1], 1))],
        ofThisHost: [drawn(4, 127, 9, 9, 9), drawn(6, ...six([], 1)), drawn(6, ...six([0xfe, 0x9a], 7))],
        backend: [drawn(4, 10, 0, 0, 2), drawn(6, ...six([0xfd], 2))]
      }
      Routes.putRoute(serving(14, { share: share(32), isRedirected: true }))
      return { ...led, onlyRedirected: drawn(4, 203, 0, 113, 1) }
    })
    assert.deepStrictEqual(outcome, {
      remote: [[14], [16]],
      ofThisHost: [
        [14, 4],
        [16, 6],
        [16, 6]
      ],
      backend: [
        [14, 4],
        [16, 6]
      ],
      onlyRedirected: [14, 4]
    })
  })
})

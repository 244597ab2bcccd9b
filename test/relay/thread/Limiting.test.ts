/** Limits of the relay, with real sockets. */
import { assert, describe } from "@effect/vitest"
import { type Limits, noLimits, noneRefused } from "../../../src/protocol/Limits.ts"
import { type Balance, parseSlots } from "../../../src/protocol/Slots.ts"
import { reservePorts } from "../../support/ports.ts"
import { untilEqual } from "../../support/until.ts"
import { ending, exchange, nextData, relayTest, type World } from "../world.ts"

const free = await reservePorts()
const limits = (some: Partial<Limits>): Limits => ({ ...noLimits, ...some })
const one = { balance: "source" as Balance, size: 64 as const }

/** A client that stays: the socket once the backend has greeted it, or `undefined` where the relay refuses it. */
const stay = async (world: World, port: number, localAddress = "127.0.0.1") => {
  const socket = world.dial(port, "127.0.0.1", { localAddress })
  const greeted = await Promise.race([nextData(socket), ending(socket)])
  return typeof greeted === "string" ? socket : undefined
}

/** How many of these clients are served. */
const served = async (clients: ReadonlyArray<Promise<unknown>>): Promise<number> =>
  (await Promise.all(clients)).filter((client) => client !== undefined).length

const times = <A>(count: number, make: (index: number) => A): ReadonlyArray<A> =>
  Array.from({ length: count }, (_, index) => make(index))

/** Asserts that a rate of one a second holds, however slow this machine is. Returns how many were refused. */
const oneSecondly = async (clients: () => ReadonlyArray<Promise<unknown>>): Promise<number> => {
  const begun = performance.now()
  const asked = clients()
  const count = await served(asked)
  assert.isAtLeast(count, 1)
  assert.isAtMost(count, 1 + Math.floor((performance.now() - begun) / 1000))
  return asked.length - count
}

describe("the relay's limits", () => {
  const greeting = (world: World) =>
    world.backend((socket) => {
      socket.on("end", () => socket.end()).resume()
      socket.write("hello")
    })

  relayTest("let no more connections be open at once, and reset the others", async (world) => {
    const backend = await greeting(world)
    const port = free(0)
    const route = await world.open({ protocol: "tcp", port, backend, limits: limits({ connections: 3 }) })
    const clients = await Promise.all(times(8, () => stay(world, port)))
    const open = clients.flatMap((client) => client ?? [])
    assert.strictEqual(open.length, 3)
    assert.deepStrictEqual((await world.count(route)).refused, { ...noneRefused, connections: 5 })
    const [first, second, third] = open
    first?.destroy()
    second?.destroy()
    await untilEqual(() => served([stay(world, port)]), 1)
    // What stays open under a new limit counts; a higher one makes room.
    await world.reopen({ ...route, limits: limits({ connections: 1 }) })
    assert.isUndefined(await stay(world, port))
    await world.reopen({ ...route, limits: undefined })
    assert.strictEqual(await served(times(5, () => stay(world, port))), 5)
    third?.write("x")
    assert.isFalse(third?.destroyed)
    await world.reopen({ ...route, limits: limits({ connections: 8 }) })
    assert.strictEqual(await served(times(3, () => stay(world, port))), 1)
  })

  relayTest("let no more connections begin in a second, and as many again later", async (world) => {
    const backend = await greeting(world)
    const port = free(1)
    const route = await world.open({ protocol: "tcp", port, backend, limits: limits({ rate: 1 }) })
    const over = await oneSecondly(() => times(6, () => stay(world, port)))
    assert.deepStrictEqual((await world.count(route)).refused, { ...noneRefused, rate: over })
    await untilEqual(() => served([stay(world, port)]), 1)
    await world.reopen({ ...route, limits: limits({ rate: 1_000_000 }) })
    assert.strictEqual(await served(times(20, () => stay(world, port))), 20)
    await world.reopen({ ...route, limits: undefined })
    assert.strictEqual(await served(times(20, () => stay(world, port))), 20)
  })

  relayTest("let no source begin more in a second, and charge the others nothing for it", async (world) => {
    const backend = await greeting(world)
    const port = free(2)
    const route = await world.open({
      protocol: "tcp",
      port,
      backend,
      limits: limits({ ratePerSource: 1, rate: 3 })
    })
    let over = 0
    for (const source of ["127.0.0.1", "127.0.2.1", "127.0.2.2"])
      over += await oneSecondly(() => times(5, () => stay(world, port, source)))
    assert.deepStrictEqual((await world.count(route)).refused, { ...noneRefused, "rate-per-source": over })
  })

  relayTest("hold for the new flows of UDP", async (world) => {
    const backend = (await world.echoDatagrams()).endpoint
    const ask = async (port: number, source?: string) =>
      exchange(await world.datagrams(source), "x", port, "127.0.0.1", 300)
    const atMost = await world.open({
      protocol: "udp",
      port: free(3),
      backend,
      limits: limits({ connections: 2 })
    })
    const client = await world.datagrams()
    assert.isDefined(await exchange(client, "a", free(3), "127.0.0.1"))
    assert.strictEqual(await served(times(4, () => ask(free(3)))), 1)
    assert.isDefined(await exchange(client, "b", free(3), "127.0.0.1"))
    assert.deepStrictEqual((await world.count(atMost)).refused, { ...noneRefused, connections: 3 })
    await world.reopen({ ...atMost, limits: limits({ connections: 3 }) })
    assert.strictEqual(await served(times(3, () => ask(free(3)))), 1)

    const perSecond = await world.open({
      protocol: "udp",
      port: free(4),
      backend,
      limits: limits({ rate: 1 })
    })
    const overRate = await oneSecondly(() => times(4, () => ask(free(4))))
    assert.deepStrictEqual((await world.count(perSecond)).refused, { ...noneRefused, rate: overRate })

    const fair = await world.open({
      protocol: "udp",
      port: free(5),
      backend,
      limits: limits({ ratePerSource: 1 })
    })
    let over = 0
    for (const source of ["127.0.0.1", "127.0.2.1"])
      over += await oneSecondly(() => times(3, () => ask(free(5), source)))
    assert.deepStrictEqual((await world.count(fair)).refused, { ...noneRefused, "rate-per-source": over })
  })

  relayTest("give a UDP flow's place to another when it ends", async (world) => {
    const backend = (await world.echoDatagrams()).endpoint
    const port = free(6)
    const route = await world.open({
      protocol: "udp",
      port,
      backend,
      limits: limits({ connections: 1, ratePerSource: 1000 })
    })
    const ask = async () => exchange(await world.datagrams(), "x", port, "127.0.0.1", 300)
    assert.strictEqual(await served(times(3, ask)), 1)
    await world.close(route)
    await world.open({
      ...route,
      protocol: "udp",
      host: "127.0.0.1",
      socket: await world.reserve("udp", "127.0.0.1", port)
    })
    assert.strictEqual(await served(times(3, ask)), 1)
  })

  relayTest("are those of the port where several backends share it", async (world) => {
    const [web, other] = [await greeting(world), await greeting(world)]
    const port = free(7)
    const share = (slots: string) => ({
      ...one,
      balance: "random" as Balance,
      slots: parseSlots(slots) ?? []
    })
    const common = { protocol: "tcp", port, limits: limits({ connections: 4 }) } as const
    const route = await world.open({ ...common, backend: web, share: share("0-31") })
    const { socket } = route
    const second = await world.open({ ...common, backend: other, socket, share: share("32-63") })
    assert.strictEqual(await served(times(20, () => stay(world, port))), 4)
    const counts = [await world.count(route), await world.count(second)]
    assert.strictEqual(
      counts.reduce((sum, { refused }) => sum + refused.connections, 0),
      16
    )
  })

  relayTest("are each address's own where several share a socket", async (world) => {
    const backend = await greeting(world)
    const port = free(8)
    const socket = await world.reserve("tcp", "0.0.0.0", port)
    for (const [host, connections] of [
      ["127.0.0.1", 1],
      ["127.0.0.2", 2]
    ] as const)
      await world.open({ protocol: "tcp", host, port, socket, backend, limits: limits({ connections }) })
    const at = async (host: string) => {
      const client = world.dial(port, host)
      const greeted = await Promise.race([nextData(client), ending(client)])
      return typeof greeted === "string" ? client : undefined
    }
    assert.deepStrictEqual(
      [await served(times(5, () => at("127.0.0.1"))), await served(times(5, () => at("127.0.0.2")))],
      [1, 2]
    )
  })

  relayTest("count nothing for a connection that is over", async (world) => {
    const backend = await world.backend((socket) => void socket.end("hello"))
    const port = free(9)
    await world.open({ protocol: "tcp", port, backend, limits: limits({ connections: 1 }) })
    for (let round = 0; round < 50; round++) {
      await untilEqual(async () => {
        const client = await stay(world, port)
        client?.end()
        return client !== undefined
      }, true)
    }
  })
})

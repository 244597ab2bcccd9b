import { once } from "node:events"
import { type AddressInfo, createServer, type Socket } from "node:net"
import { assert, describe } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { IpNetwork } from "effect/net"
import { AF_INET, libc, SOCK_STREAM } from "../../../adapters/linux/Libc.ts"
import { boundTo, socketAddress } from "../../../adapters/linux/sockets/SocketAddress.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"
import { Relay } from "../../../src/relay/Relay.ts"
import { reservePorts } from "../../support/ports.ts"
import { untilEqual } from "../../support/until.ts"
import { connected, ending, endpoint, nextData, relayTest, sent, sleep, type World } from "../world.ts"

const free = await reservePorts()
const long = Duration.minutes(5)
const short = Duration.millis(600)

const named = (world: World, name: string) =>
  world.backend((socket) => socket.on("data", (bytes: Buffer) => socket.write(`${name} got ${bytes}`)))

const crowdOf = (world: World, port: number, count: number): Promise<ReadonlyArray<Socket>> =>
  Promise.all(Array.from({ length: count }, () => connected(world, port)))

const share = (slots: number) => ({
  balance: "random" as const,
  size: 64 as const,
  slots: Array.from({ length: slots }, (_, slot) => slot)
})

describe("clients of a frontend without a backend", () => {
  relayTest("resets new connections at once, and lets the others go on", async (world) => {
    const backend = await named(world, "a")
    const route = await world.open({ protocol: "tcp", port: free(0), backend })
    const early = await connected(world, free(0))
    early.write("1")
    assert.strictEqual(await nextData(early), "a got 1")
    await world.reopen({ ...route, idle: true })
    assert.strictEqual((await ending(world.dial(free(0)))).how, "ECONNRESET")
    early.write("2")
    assert.strictEqual(await nextData(early), "a got 2")
  })

  relayTest("lets clients wait, and relays what they sent once there is a backend", async (world) => {
    const backend = await named(world, "a")
    const route = await world.open({
      protocol: "tcp",
      port: free(1),
      backend,
      proxyProtocol: "v1",
      idle: true,
      waitHealthy: long
    })
    const clients = await crowdOf(world, free(1), 20)
    const halfClosed = await connected(world, free(1))
    halfClosed.end("all")
    for (const [index, client] of clients.entries()) client.write(`${index}`)
    const answers = clients.map(nextData)
    const last = nextData(halfClosed)
    await world.reopen({ ...route, waitHealthy: long, idle: undefined })
    assert.deepStrictEqual(
      await Promise.all(answers),
      clients.map(
        ({ localPort }, index) => `a got PROXY TCP4 127.0.0.1 127.0.0.1 ${localPort} ${free(1)}\r\n${index}`
      )
    )
    assert.match(await last, /\r\nall$/)
    assert.strictEqual((await world.count(route)).connections, 21)
  })

  relayTest("resets clients at their deadline, and when their route is closed", async (world) => {
    const backend = endpoint("127.0.0.1", 9)
    await world.open({ protocol: "tcp", port: free(2), backend, idle: true, waitHealthy: short })
    assert.strictEqual((await ending(world.dial(free(2)))).how, "ECONNRESET")
    const route = await world.open({ protocol: "tcp", port: free(3), backend, idle: true, waitHealthy: long })
    const ended = ending(await connected(world, free(3)))
    await world.close(route)
    assert.strictEqual((await ended).how, "ECONNRESET")
  })

  relayTest(
    "leads waiting clients of a service to the backend that comes, whichever route is closed",
    async (world) => {
      const [a, b, c] = [await named(world, "a"), await named(world, "b"), await named(world, "c")]
      const asked = { protocol: "tcp", port: free(4), waitHealthy: long } as const
      const first = await world.open({ ...asked, backend: a, share: share(0) })
      const { socket } = first
      const second = await world.open({ ...asked, socket, backend: b, share: share(0) })
      const clients = await crowdOf(world, free(4), 8)
      const answers = clients.map(nextData)
      for (const client of clients) client.write("x")
      await sleep(50)
      await world.run(Effect.flatMap(Relay, (relay) => relay.close(first)))
      await world.run(Effect.flatMap(Relay, (relay) => relay.close({ ...second, backend: c })))
      await world.open({ ...asked, socket, backend: c, share: share(64) })
      assert.deepStrictEqual(
        await Promise.all(answers),
        clients.map(() => "c got x")
      )
    }
  )

  relayTest(
    "counts waiting clients among the open ones, and refuses those that are allowed no longer",
    async (world) => {
      const backend = await named(world, "a")
      const limits = { connections: 1, rate: undefined, ratePerSource: undefined }
      const route = await world.open({
        ...{ protocol: "tcp", port: free(5), backend, idle: true, waitHealthy: long, limits }
      })
      const client = await connected(world, free(5))
      await untilEqual(async () => (await ending(world.dial(free(5)))).how, "ECONNRESET")
      const ended = ending(client)
      await world.reopen({ ...route, allow: [IpNetwork.fromStringUnsafe("10.0.0.0/8")] })
      assert.strictEqual((await ended).how, "ECONNRESET")
      await world.reopen({ ...route, idle: undefined })
      const next = await connected(world, free(5))
      next.write("y")
      assert.strictEqual(await nextData(next), "a got y")
    }
  )

  relayTest(
    "keeps the place of a client that waits at another route once its own is closed",
    async (world) => {
      const backend = await named(world, "a")
      const limits = { connections: 1, rate: undefined, ratePerSource: undefined }
      const asked = { protocol: "tcp", port: free(11), waitHealthy: long, limits } as const
      const refusal = async () => (await ending(world.dial(free(11)))).how
      const first = await world.open({ ...asked, backend: endpoint("127.0.0.1", 9), share: share(0) })
      const { socket } = first
      const others = { ...asked, socket, share: share(0) }
      const second = await world.open({ ...others, backend: endpoint("127.0.0.1", 10) })
      const client = await connected(world, free(11))
      client.write("x")
      assert.strictEqual(await refusal(), "ECONNRESET")
      await world.open({ ...others, backend })
      // One of them is where it waits.
      for (const route of [first, second]) {
        await world.run(Effect.flatMap(Relay, (relay) => relay.close(route)))
        assert.strictEqual(await refusal(), "ECONNRESET")
      }
      const answer = nextData(client)
      await world.open({ ...asked, socket, backend, share: share(64) })
      assert.strictEqual(await answer, "a got x")
      assert.strictEqual(await refusal(), "ECONNRESET")
      client.resetAndDestroy()
      await untilEqual(() => {
        const next = world.dial(free(11))
        next.write("y")
        return Promise.race([nextData(next), ending(next).then(({ how }) => how)])
      }, "a got y")
    },
    { maxThreads: 1 }
  )

  relayTest(
    "reports where clients wait, not once for each of them, and again once they have been served",
    async (world) => {
      const backend = await named(world, "a")
      const asked = { protocol: "tcp", port: free(8), backend, idle: true, waitHealthy: long } as const
      const route = await world.open(asked)
      const reported: Array<number> = []
      void world.run(
        Effect.flatMap(Relay, (relay) =>
          Effect.forever(Effect.map(relay.waits, ({ port }) => void reported.push(port)))
        )
      )
      const flood = await crowdOf(world, free(8), 300)
      await untilEqual(async () => reported.length > 0, true)
      const answers = flood.map(nextData)
      for (const client of flood) client.write("x")
      await world.reopen({ ...route, idle: undefined })
      await Promise.all(answers)
      // A thread reports at most one in a second.
      assert.isBelow(reported.length, 100)
      reported.length = 0
      await world.reopen(route)
      await connected(world, free(8))
      await untilEqual(async () => reported, [free(8)])
    }
  )

  relayTest("serves a crowd that waited for a server with a short queue", async (world) => {
    const slow = createServer((socket) => {
      socket.on("error", () => {})
      socket.once("data", () => socket.end("late"))
    })
    slow.listen({ port: 0, host: "127.0.0.1", backlog: 5 })
    await once(slow, "listening")
    const backend = endpoint("127.0.0.1", (slow.address() as AddressInfo).port)
    const limits = { connections: 300, rate: undefined, ratePerSource: undefined }
    const asked = { protocol: "tcp", port: free(10), backend, idle: true, waitHealthy: long, limits } as const
    const route = await world.open(asked)
    const crowd = await crowdOf(world, free(10), 300)
    await untilEqual(async () => (await ending(world.dial(free(10)))).how, "ECONNRESET")
    const answers = crowd.map(nextData)
    for (const client of crowd) client.write("x")
    await world.reopen({ ...route, idle: undefined })
    assert.deepStrictEqual(
      await Promise.all(answers),
      crowd.map(() => "late")
    )
    slow.close()
  })

  relayTest(
    "serves another frontend of the socket while the queue of this one's server is full",
    async (world) => {
      const { socket: open, bind, listen, close } = libc()
      const server = open(AF_INET, SOCK_STREAM, 0)
      const name = socketAddress(addressUnsafe("127.0.0.1"), 0, 0)
      assert.deepStrictEqual([bind(server, name, name.length), listen(server, 1)], [0, 0])
      const full = boundTo(libc(), server)
      if (full === undefined) throw new Error("the server has no port")
      const other = await named(world, "b")
      const socket = await world.reserve("tcp", "0.0.0.0", free(12))
      const tcp = { protocol: "tcp", port: free(12), socket } as const
      const asked = { ...tcp, host: "127.0.0.2", backend: full, idle: true, waitHealthy: long } as const
      const route = await world.open(asked)
      await world.open({ ...tcp, host: "127.0.0.3", backend: other })
      const ask = async (text: string) => {
        const client = world.dial(free(12), "127.0.0.3")
        client.write(text)
        return nextData(client)
      }
      for (let client = 0; client < 20; client++) await once(world.dial(free(12), "127.0.0.2"), "connect")
      // The only thread has then accepted all that came before.
      assert.strictEqual(await ask("1"), "b got 1")
      await world.reopen({ ...route, idle: undefined })
      assert.strictEqual(await ask("2"), "b got 2")
      close(server)
    },
    { maxThreads: 1 }
  )

  relayTest("refuses those who wait once the route lets none wait", async (world) => {
    const backend = endpoint("127.0.0.1", 9)
    const tcp = await world.open({ protocol: "tcp", port: free(9), backend, idle: true, waitHealthy: long })
    const udp = await world.open({ protocol: "udp", port: free(9), backend, idle: true, waitHealthy: long })
    const ended = ending(await connected(world, free(9)))
    const { refused } = await sent(world, "1", free(9))
    await sleep(50)
    await world.reopen({ ...tcp, waitHealthy: undefined })
    await world.reopen({ ...udp, waitHealthy: undefined })
    assert.strictEqual((await ended).how, "ECONNRESET")
    assert.strictEqual(await refused, "ECONNREFUSED")
  })
})

import type { Socket as Datagrams } from "node:dgram"
import { assert, describe } from "@effect/vitest"
import { Duration } from "effect"
import { IpNetwork } from "effect/net"
import { reservePorts } from "../../support/ports.ts"
import { endpoint, exchange, relayTest, sleep } from "../world.ts"

const free = await reservePorts()

const udp = "udp" as const

describe("the flows of a relayed UDP port", () => {
  relayTest(
    "closes an idle flow, by the route's own timeout and by the relay's",
    async (world) => {
      const backend = await world.echoDatagrams()
      const usual = await world.open({ protocol: udp, port: free(3), backend: backend.endpoint })
      const longer = await world.open({
        protocol: udp,
        port: free(4),
        backend: backend.endpoint,
        udpIdle: Duration.seconds(60)
      })
      const client = await world.datagrams()
      for (let round = 0; round < 2; round++) {
        for (const port of [free(3), free(4)]) await exchange(client, "x", port, "127.0.0.1")
        await sleep(1800)
      }
      assert.deepStrictEqual(
        [(await world.count(usual)).connections, (await world.count(longer)).connections],
        [2, 1]
      )
    },
    { udpIdle: Duration.seconds(1) }
  )

  relayTest(
    "keeps a flow with packets in one direction only, whichever it is",
    async (world) => {
      const silent = await world.datagrams()
      const senders = new Set<number>()
      silent.on("message", (_, { port }) => senders.add(port))
      const talking = await world.datagrams()
      const sayings: Array<NodeJS.Timeout> = []
      talking.on("message", (_, { port, address }) =>
        sayings.push(setInterval(() => talking.send("news", port, address), 200))
      )
      const toSilent = await world.open({
        protocol: udp,
        port: free(5),
        backend: endpoint("127.0.0.1", silent.address().port)
      })
      const toTalking = await world.open({
        protocol: udp,
        port: free(6),
        backend: endpoint("127.0.0.1", talking.address().port)
      })
      const client = await world.datagrams()
      let news = 0
      client.on("message", () => news++)
      client.send("subscribe", free(6), "127.0.0.1")
      for (let round = 0; round < 15; round++) {
        client.send("x", free(5), "127.0.0.1")
        await sleep(200)
      }
      for (const saying of sayings) clearInterval(saying)
      assert.isAtLeast(news, 12)
      assert.strictEqual(senders.size, 1)
      assert.strictEqual((await world.count(toSilent)).connections, 1)
      assert.strictEqual((await world.count(toTalking)).connections, 1)
    },
    { udpIdle: Duration.seconds(1) }
  )

  relayTest(
    "holds a bounded number of flows, and evicts no conversation for short exchanges",
    async (world) => {
      const backend = await world.echoDatagrams()
      const route = await world.open({ protocol: udp, port: free(7), backend: backend.endpoint })
      const ask = async (client: Datagrams, text: string) =>
        assert.strictEqual((await exchange(client, text, free(7), "127.0.0.1"))?.text, text)
      const conversing = await world.datagrams()
      await ask(conversing, "first")
      await sleep(600)
      await ask(conversing, "second")
      const [port] = backend.ports
      for (let source = 0; source < 100; source++) await ask(await world.datagrams(), `${source}`)
      assert.strictEqual((await world.count(route)).connections, 101)
      // The backend sends first, to the flow that has been silent the longest.
      const received = new Promise((resolve) =>
        conversing.once("message", (bytes) => resolve(bytes.toString()))
      )
      backend.socket.send("still there?", port ?? 0, "127.0.0.1")
      assert.strictEqual(await received, "still there?")
      for (let source = 0; source < 20; source++) {
        const client = await world.datagrams()
        for (let said = 0; said < 2; said++) {
          await ask(client, "chatty")
          await sleep(260)
        }
      }
      await ask(conversing, "third")
      assert.strictEqual((await world.count(route)).connections, 122)
    },
    { maxFlows: 8 }
  )

  relayTest(
    "answers every source of a burst while its table is full",
    async (world) => {
      const backend = await world.echoDatagrams()
      await world.open({ protocol: udp, port: free(10), backend: backend.endpoint })
      const ask = async (text: string) =>
        (await exchange(await world.datagrams(), text, free(10), "127.0.0.1"))?.text
      for (let source = 0; source < 64; source++) await ask(`${source}`)
      await sleep(1500)
      const burst = Array.from({ length: 50 }, (_, source) => `burst ${source}`)
      assert.deepStrictEqual(await Promise.all(burst.map(ask)), burst)
    },
    { maxFlows: 64 }
  )

  relayTest("drops packets of sources that are not allowed, and counts them", async (world) => {
    const backend = await world.echoDatagrams()
    const route = await world.open({
      protocol: udp,
      port: free(8),
      backend: backend.endpoint,
      allow: [IpNetwork.fromStringUnsafe("127.0.2.0/24")]
    })
    const allowed = await world.datagrams("127.0.2.9")
    const other = await world.datagrams("127.0.3.9")
    assert.strictEqual((await exchange(allowed, "in", free(8), "127.0.0.1"))?.text, "in")
    assert.isUndefined(await exchange(other, "out", free(8), "127.0.0.1", 100))
    assert.isUndefined(await exchange(other, "out", free(8), "127.0.0.1", 100))
    const { connections, refused } = await world.count(route)
    assert.deepStrictEqual([connections, refused.allow], [1, 2])
  })
})

import { assert, describe } from "@effect/vitest"
import { Duration } from "effect"
import { reservePorts } from "../../support/ports.ts"
import { ending, endpoint, exchange, nextData, relayTest, sleep } from "../world.ts"

const free = await reservePorts()

const names = ["one", "two", "three", "four", "five"]

describe("the loop of a relay's thread", () => {
  for (const [neighbour, isBusy] of [
    ["rests", false],
    ["is at work", true]
  ] as const)
    relayTest(`mixes up no routes that come and go while the thread ${neighbour}`, async (world) => {
      const tcp = await Promise.all(names.map((name) => world.backend((socket) => socket.end(name))))
      const udp = await Promise.all(
        names.map(async (name) => {
          const socket = await world.datagrams()
          socket.on("message", (_, from) => socket.send(name, from.port, from.address))
          return endpoint("127.0.0.1", socket.address().port)
        })
      )
      const echo = await world.backend((socket) => socket.pipe(socket))
      const { socket: other } = await world.open({ protocol: "tcp", port: free(10), backend: echo })
      const speaker = world.dial(other.port)
      if (isBusy) speaker.on("data", () => speaker.write("again")).write("begin")
      const client = await world.datagrams()

      // A former listener's number may next be a datagram socket's, or that of a descriptor unknown to the thread.
      for (let round = 0; round < 300; round++) {
        const protocol = round % 3 === 0 ? "udp" : "tcp"
        const port = free(11) + (round % 2)
        const backend = (protocol === "udp" ? udp : tcp)[round % names.length] ?? assert.fail("no backend")
        const route = await world.open({ protocol, port, backend })
        if (round % 4 !== 0) {
          const answer =
            protocol === "udp"
              ? (await exchange(client, "who", port, "127.0.0.1", 5000))?.text
              : (await ending(world.dial(port))).text
          assert.strictEqual(answer, names[round % names.length])
        }
        await world.close(route)
        if (protocol === "tcp") assert.strictEqual((await ending(world.dial(port))).how, "ECONNREFUSED")
        else assert.isUndefined(await exchange(client, "gone", port, "127.0.0.1", 1))
      }
      speaker.destroy()
    })

  relayTest(
    "ends a route's remaining connections after the grace time, whatever else happens",
    async (world) => {
      const backend = await world.backend((socket) => socket.pipe(socket))
      const route = await world.open({ protocol: "tcp", port: free(14), backend })
      const client = world.dial(free(14))
      client.write("before")
      await nextData(client)
      const end = ending(client)
      await sleep(100)
      const closed = Date.now()
      await world.close(route)
      assert.strictEqual((await end).how, "ECONNRESET")
      // A thread without a wake-up sleeps for ten seconds.
      assert.isBelow(Date.now() - closed, 5000)
    },
    { grace: Duration.millis(100) }
  )
})

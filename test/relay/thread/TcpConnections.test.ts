import { once } from "node:events"
import { assert, describe } from "@effect/vitest"
import { noneRefused } from "../../../src/protocol/Limits.ts"
import { reservePorts } from "../../support/ports.ts"
import { ending, loopbacks, readAll, relayTest, sleep } from "../world.ts"

const free = await reservePorts()

const tcp = "tcp" as const

describe("the two ends of a relayed connection", () => {
  for (const [frontHost, backendHost] of loopbacks)
    relayTest(`carries bytes both ways from ${frontHost} to ${backendHost}`, async (world) => {
      const backend = await world.backend((socket) => socket.pipe(socket), backendHost)
      const route = await world.open({ protocol: tcp, host: frontHost, port: free(0), backend })
      const client = world.dial(free(0), frontHost)
      const sent = Buffer.alloc(300_000, "abc")
      client.end(sent)
      assert.isTrue((await readAll(client)).equals(sent))
      assert.deepStrictEqual(await world.count(route), {
        connections: 1,
        refused: noneRefused,
        bytesIn: 300_000,
        bytesOut: 300_000
      })
    })

  relayTest("passes on the client's end while the backend goes on", async (world) => {
    const backend = await world.backend(async (socket) => {
      const received = await readAll(socket)
      socket.end(`got ${received.length}`)
    })
    await world.open({ protocol: tcp, port: free(1), backend })
    const client = world.dial(free(1))
    client.end(Buffer.alloc(3_000_001))
    assert.strictEqual((await readAll(client)).toString(), "got 3000001")
  })

  relayTest("passes on the backend's end while the client goes on", async (world) => {
    let received = 0
    const all = Promise.withResolvers<void>()
    const backend = await world.backend((socket) => {
      socket.on("data", (bytes) => {
        received += bytes.length
      })
      socket.on("end", () => all.resolve())
      socket.end("hello")
    })
    await world.open({ protocol: tcp, port: free(2), backend })
    const client = world.dial(free(2))
    assert.strictEqual((await readAll(client)).toString(), "hello")
    client.end(Buffer.alloc(1_000_000))
    await all.promise
    assert.strictEqual(received, 1_000_000)
  })

  relayTest("resets the backend where the client resets", async (world) => {
    const seen = Promise.withResolvers<string>()
    const backend = await world.backend((socket) => void ending(socket).then(({ how }) => seen.resolve(how)))
    await world.open({ protocol: tcp, port: free(5), backend })
    const client = world.dial(free(5))
    client.write("x")
    await sleep(50)
    client.resetAndDestroy()
    assert.strictEqual(await seen.promise, "ECONNRESET")
  })

  relayTest("delivers what a backend sent before it reset, then resets the client", async (world) => {
    const backend = await world.backend((socket) => {
      socket.write("last words")
      setTimeout(() => socket.resetAndDestroy(), 30)
    })
    await world.open({ protocol: tcp, port: free(6), backend })
    assert.deepStrictEqual(await ending(world.dial(free(6))), { how: "ECONNRESET", text: "last words" })
  })

  relayTest("resets the client where the backend ended and then reset", async (world) => {
    const backend = await world.backend((socket) => {
      socket.resume()
      socket.end("bye")
      setTimeout(() => socket.resetAndDestroy(), 50)
    })
    await world.open({ protocol: tcp, port: free(7), backend })
    const client = world.dial(free(7))
    const reset = new Promise<string>((resolve) =>
      client.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""))
    )
    client.resume()
    await once(client, "end")
    const writing = setInterval(() => client.write("x"), 20)
    assert.match(await reset, /ECONNRESET|EPIPE/)
    clearInterval(writing)
  })
})

import { once } from "node:events"
import { assert, describe } from "@effect/vitest"
import { reservePorts } from "../../support/ports.ts"
import { readAll, relayTest, sleep } from "../world.ts"

const free = await reservePorts()

const tcp = "tcp" as const

/** So many bytes of which each part tells where it belongs. */
const pattern = (size: number) => Buffer.alloc(size, "0123456789a")

describe("bytes that can't be sent yet", () => {
  relayTest("stops a client whose backend does not read, and loses nothing", async (world) => {
    const accepted = Promise.withResolvers<import("node:net").Socket>()
    const backend = await world.backend((socket) => {
      socket.pause()
      accepted.resolve(socket)
    })
    await world.open({ protocol: tcp, port: free(8), backend })
    const client = world.dial(free(8))
    await once(client, "connect")
    const chunk = pattern(11 * 5957)
    let sent = 0
    let lastDrain = Date.now()
    while (Date.now() - lastDrain < 300)
      if (client.writableNeedDrain) await sleep(20)
      else {
        client.write(chunk)
        sent += chunk.length
        lastDrain = Date.now()
      }
    assert.isBelow(sent, 64 << 20)
    client.end()
    const received = await readAll(await accepted.promise)
    assert.isTrue(received.equals(pattern(sent)))
  })

  relayTest("delivers to a slow client all that the backend sent before its end", async (world) => {
    const size = 20_000_000
    const backend = await world.backend((socket) => socket.end(pattern(size)))
    await world.open({ protocol: tcp, port: free(9), backend })
    const client = world.dial(free(9))
    client.pause()
    await sleep(300)
    assert.isTrue((await readAll(client)).equals(pattern(size)))
  })
})

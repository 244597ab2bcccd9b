import { assert, describe } from "@effect/vitest"
import { Duration } from "effect"
import { reservePorts } from "../../support/ports.ts"
import { ending, exchange, nextData, relayTest } from "../world.ts"

const free = await reservePorts()

const udp = "udp" as const
const tcp = "tcp" as const

/** Long enough for what a busy machine does meanwhile. */
const graceMillis = 3000

describe("the connections and flows of a closed route", () => {
  relayTest(
    "stops accepting once closed, ends open connections after the grace time, and frees the port at once",
    async (world) => {
      const backend = await world.backend((socket) => socket.pipe(socket))
      const route = await world.open({ protocol: tcp, port: free(13), backend })
      const client = world.dial(free(13))
      client.write("before")
      await nextData(client)
      const begun = Date.now()
      const ended = new Promise<string>((resolve) =>
        client.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""))
      )
      await world.close(route)
      // The port is free before the grace time is over.
      assert.isBelow(Date.now() - begun, graceMillis)
      const refused = await ending(world.dial(free(13)))
      assert.strictEqual(refused.how, "ECONNREFUSED")

      const other = await world.backend((socket) => socket.end("other"))
      await world.open({ protocol: tcp, port: free(13), backend: other })
      assert.strictEqual((await ending(world.dial(free(13)))).text, "other")
      client.write("within grace")
      assert.strictEqual(await nextData(client), "within grace")
      assert.strictEqual(await ended, "ECONNRESET")
      assert.isAtLeast(Date.now() - begun, graceMillis)
      assert.strictEqual((await ending(world.dial(free(13)))).text, "other")
    },
    { grace: Duration.millis(graceMillis) }
  )

  relayTest("ends its flows when it is closed, and frees the port at once", async (world) => {
    const first = await world.echoDatagrams()
    const second = await world.echoDatagrams()
    const route = await world.open({ protocol: udp, port: free(9), backend: first.endpoint })
    const client = await world.datagrams()
    assert.strictEqual((await exchange(client, "a", free(9), "127.0.0.1"))?.text, "a")
    await world.close(route)
    assert.isUndefined(await exchange(client, "b", free(9), "127.0.0.1", 100))
    await world.open({ protocol: udp, port: free(9), backend: second.endpoint })
    assert.strictEqual((await exchange(client, "c", free(9), "127.0.0.1"))?.text, "c")
    assert.strictEqual(second.ports.size, 1)
  })
})

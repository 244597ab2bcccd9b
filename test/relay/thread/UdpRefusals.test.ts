import { assert, describe } from "@effect/vitest"
import { reservePorts } from "../../support/ports.ts"
import { exchange, relayTest, sent } from "../world.ts"

const free = await reservePorts()

describe("a packet without a backend", () => {
  relayTest(
    "is refused by an ICMP message in the thread's first second, too, and a flow goes on",
    async (world) => {
      const backend = await world.echoDatagrams()
      const route = await world.open({ protocol: "udp", port: free(0), backend: backend.endpoint })
      const early = await world.datagrams()
      assert.strictEqual((await exchange(early, "1", free(0), "127.0.0.1"))?.text, "1")
      await world.reopen({ ...route, idle: true })
      const { refused } = await sent(world, "2", free(0))
      assert.strictEqual(await refused, "ECONNREFUSED")
      assert.strictEqual((await exchange(early, "3", free(0), "127.0.0.1"))?.text, "3")
    }
  )
})

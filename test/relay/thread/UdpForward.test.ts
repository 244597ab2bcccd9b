import { assert, describe } from "@effect/vitest"
import { noneRefused } from "../../../src/protocol/Limits.ts"
import { reservePorts } from "../../support/ports.ts"
import { untilEqual } from "../../support/until.ts"
import { exchange, loopbacks, relayTest, sleep } from "../world.ts"

const free = await reservePorts()

const udp = "udp" as const

describe("a relayed packet", () => {
  for (const [frontHost, backendHost] of loopbacks)
    relayTest(`carries packets both ways from ${frontHost} to ${backendHost}`, async (world) => {
      const backend = await world.echoDatagrams(backendHost)
      const route = await world.open({
        protocol: udp,
        host: frontHost,
        port: free(0),
        backend: backend.endpoint
      })
      const client = await world.datagrams(frontHost)
      for (const size of [0, 1, 1200, 60_000])
        assert.deepStrictEqual(
          [size, (await exchange(client, Buffer.alloc(size), free(0), frontHost))?.size],
          [size, size]
        )
      // The relay counts the last answer once it has sent it.
      await sleep(50)
      assert.deepStrictEqual(await world.count(route), {
        connections: 1,
        refused: noneRefused,
        bytesIn: 61_201,
        bytesOut: 61_201
      })
    })

  relayTest("keeps a flow through refusals, and reaches a backend that was started again", async (world) => {
    const first = await world.echoDatagrams("127.0.0.1", free(50))
    const route = await world.open({ protocol: udp, port: free(2), backend: first.endpoint })
    const client = await world.datagrams()
    const ask = (text: string, patience?: number) => exchange(client, text, free(2), "127.0.0.1", patience)
    assert.strictEqual((await ask("a"))?.text, "a")
    first.socket.close()
    await sleep(20)
    for (let round = 0; round < 3; round++) assert.isUndefined(await ask("lost", 50))
    const second = await world.echoDatagrams("127.0.0.1", free(50))
    // One of those datagrams may arrive only now.
    await untilEqual(async () => (await ask("b"))?.text, "b")
    assert.deepStrictEqual([...second.ports], [...first.ports])
    assert.strictEqual((await world.count(route)).connections, 1)
  })
})
